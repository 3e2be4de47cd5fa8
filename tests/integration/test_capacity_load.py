"""The callers of `make capacity` against a server that answers what it is told."""

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from scripts.capacity.callers import PATH, form, held_place, offer, post
from scripts.capacity.simulation import ANSWERED, LATE, REFUSED


@contextmanager
def answering(*codes, seconds=0.0):
    """Answers with each of the codes in turn, the last one for ever. Gives the address and what came."""
    came, lock = [], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                came.append((self.path, self.headers["Content-Type"], body))
                code = codes[min(len(came), len(codes)) - 1]
            time.sleep(seconds)
            self.send_response(code)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64  # by default five, and the kernel makes the sixth who comes at once wait for seconds

        def handle_error(self, *_):
            """Who hangs up in the middle is part of a test."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", came
    finally:
        server.shutdown()
        server.server_close()


def test_a_form_has_the_file_in_the_field_that_the_api_reads():
    with answering(200) as (address, came):
        assert post(address, form(b"picture")) == (200, b"{}")

    ((path, kind, body),) = came
    assert (path, kind) == (PATH, "multipart/form-data; boundary=dermserve-capacity")
    assert b'name="file"' in body
    assert b"\r\n\r\npicture\r\n--dermserve-capacity--" in body


def test_each_picture_is_sent_when_it_is_due_and_what_became_of_it_is_counted():
    with answering(200, 503, 504, 200) as (address, came):
        outcomes = offer(address, form(b"x"), [0.0, 0.2, 0.4, 0.6])

    assert len(came) == 4
    assert outcomes.status.tolist() == [ANSWERED, REFUSED, LATE, ANSWERED]
    assert outcomes.due_s.tolist() == [0.0, 0.2, 0.4, 0.6]


def test_nobody_waits_for_the_pictures_before_and_time_counts_from_when_it_was_due():
    started = time.perf_counter()
    with answering(200, seconds=0.5) as (address, _):
        outcomes = offer(address, form(b"x"), [0.0] * 20)

    assert (outcomes.seconds >= 0.5).all()
    # One after the other they would take ten seconds.
    assert time.perf_counter() - started < 8


@pytest.mark.parametrize("code", [400, 500])
def test_any_other_answer_ends_the_measurement(code):
    with answering(200, code) as (address, _), pytest.raises(RuntimeError, match=rf"1 pictures were lost.*{code}"):
        offer(address, form(b"x"), [0.0, 0.3])


def test_a_connection_without_an_answer_ends_it_too():
    with answering(200) as (address, _):
        pass

    with pytest.raises(RuntimeError, match=r"1 pictures were lost.*ConnectionRefused"):
        offer(address, form(b"x"), [0.0])


def test_an_upload_that_has_begun_is_not_complete():
    with answering(200) as (address, came), held_place(address, form(b"x" * 100_000)):
        assert post(address, form(b"y"))[0] == 200
        assert len(came) == 1
