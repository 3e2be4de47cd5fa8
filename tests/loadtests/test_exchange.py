import socket
import threading
from contextlib import closing, contextmanager

import pytest
from werkzeug.formparser import parse_form_data
from werkzeug.test import EnvironBuilder

from loadtests.exchange import AddressError, Connection, form

BODY = [bytes(1_000_000)] * 20


def ask(address, *request, timeout_s=20.0):
    with closing(Connection(address, timeout_s=timeout_s)) as connection:
        return connection.send(*request)


@contextmanager
def server(answer, reads=0):
    """Gives the address of one that takes one connection, reads so many bytes, answers and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(20)
                while reads and connection.recv(reads):
                    break
                connection.sendall(answer)
                # The answer first and then the end: so it gets there although nobody reads the upload.
                connection.shutdown(socket.SHUT_WR)
                while answer and connection.recv(65_536):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(20)


def test_an_answer_that_comes_before_the_upload_is_read_is_seen():
    refusal = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    with server(refusal, reads=1000) as address:
        answer = ask(address, "POST", "/", {}, BODY)

    assert (answer.status, answer.headers["retry-after"], answer.body, answer.lost) == (503, "2", b"{}", "")


def test_a_connection_that_ends_without_an_answer_is_lost():
    with server(b"", reads=1000) as address:
        answer = ask(address, "POST", "/", {}, [b"x" * 10])

    assert answer.status == 0
    assert answer.lost in ("RemoteDisconnected", "ConnectionResetError")


def test_half_an_answer_is_lost():
    with server(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", reads=1000) as address:
        assert ask(address, "GET", "/").lost == "IncompleteRead"


def test_nobody_there_is_lost():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    answer = ask(f"http://127.0.0.1:{port}", "GET", "/")

    assert answer.lost == "ConnectionRefusedError"
    assert answer.ended_s >= answer.began_s > 0


def test_a_silent_server_is_lost_after_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"

        assert ask(address, "GET", "/", timeout_s=0.2).lost == "TimeoutError"


@pytest.mark.parametrize("address", ["", "localhost:8000", "ftp://x", "http://"])
def test_what_is_no_address(address):
    with pytest.raises(AddressError):
        Connection(address)


def test_the_form_is_one_that_a_server_understands():
    content_type, body = form([b"one\r\n--", b"two"], {"consent": "yes"})
    environ = EnvironBuilder(method="POST", content_type=content_type, data=b"".join(body)).get_environ()

    _, fields, files = parse_form_data(environ)

    assert dict(fields) == {"consent": "yes"}
    assert [file.read() for file in files.getlist("file")] == [b"one\r\n--", b"two"]
    for file in files.getlist("file"):
        file.close()


def test_the_key_goes_along():
    with (
        server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", reads=1000) as address,
        closing(Connection(address, "dsk_secret")) as connection,
    ):
        assert connection._headers["Authorization"] == "Bearer dsk_secret"
        assert connection.send("GET", "/").status == 200
