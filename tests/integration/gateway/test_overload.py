"""More pictures than a gateway can take: real gunicorn, a model server that a test holds up."""

import http.client
import socket
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress

import pytest
import requests
from urllib3 import encode_multipart_formdata

from tests import paced_server, processes
from tests.pictures import encode, paint, textured

AT_WORK, WAITING = 2, 2
FEW_PLACES = {"GATEWAY_WORKERS": "1", "GATEWAY_THREADS": str(AT_WORK), "GATEWAY_MAX_WAITING": str(WAITING)}


@contextmanager
def held_up(folder, **settings):
    """A model server that answers nothing for now, and a gateway of one process before it."""
    with (
        paced_server.serving(paced_server.PacedServer()) as server,
        processes.gateway(server.port, folder, **FEW_PLACES | settings) as (program, address),
    ):
        server.go.clear()
        yield server, program, address


@contextmanager
def full(address, server, count=AT_WORK + WAITING):
    """So many uploads begun and not ended: each has a place. Their connections."""
    head = b"POST /api/v1/classifications HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    connections = [connect(address) for _ in range(count)]
    try:
        for connection in connections:
            connection.sendall(head + b"Content-Length: 5000000\r\n\r\n--x")
        processes.wait_until(lambda: processes.read_metrics(address).get(("pictures", "present"), 0) == count)
        yield connections
    finally:
        for connection in connections:
            connection.close()


def connect(address):
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def test_far_more_than_it_can_take_are_answered_or_refused_at_once(tmp_path):
    asked = 60
    with held_up(tmp_path) as (server, _, address), ThreadPoolExecutor(asked) as pool:
        answers = [pool.submit(processes.post_picture, address, paint()) for _ in range(asked)]
        # Refused while nothing is answered: they did not wait for those at work.
        processes.wait_until(lambda: sum(answer.done() for answer in answers) >= asked - AT_WORK - WAITING)
        server.go.set()
        assert not wait(answers, timeout=60).not_done
        codes = [answer.result().status_code for answer in answers]
        refused = [answer.result() for answer in answers if answer.result().status_code != 200]
        metrics = processes.read_metrics(address)

    assert set(codes) == {200, 503}
    assert AT_WORK <= codes.count(200) <= AT_WORK + WAITING
    assert {(answer.json()["type"], answer.headers["Retry-After"]) for answer in refused} == {("/problems/overloaded", "2")}
    # A refusal costs no decoding and no call.
    assert metrics["stage_seconds_count", "decode"] == codes.count(200) == server.pictures
    assert metrics["admissions_total", "admitted"] == codes.count(200)
    assert metrics["admissions_total", "full"] + metrics.get(("admissions_total", "late"), 0) == len(refused)
    assert {metrics["pictures", state] for state in ("present", "waiting", "at_work")} == {0}


@pytest.mark.parametrize("path", ["/api/v1/classifications", "/check"])
def test_a_client_that_sends_a_large_body_sees_the_refusal_and_can_go_on(tmp_path, path):
    """It reads only once it has sent everything: a connection that is reset meanwhile would hide the answer."""
    form = {"file": ("x.bmp", encode(textured((2500, 2000)), "BMP")), "consent": "yes"}
    body, content_type = encode_multipart_formdata(form)
    with held_up(tmp_path, GATEWAY_MAX_WAITING="0") as (server, _, address), full(address, server, AT_WORK):
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
        connection.connect()
        # One connection for all: none may be needed in place of one that was reset.
        connection.auto_open = 0
        for _ in range(3):
            connection.request("POST", path, body, {"Content-Type": content_type})
            answer = connection.getresponse()
            text = answer.read().decode()
            assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
            assert "/problems/overloaded" in text or "<html" in text
        connection.request("GET", "/health/live")
        assert connection.getresponse().status == 200
        connection.close()


def test_the_refusal_is_out_before_the_upload_is_in(tmp_path):
    with (
        held_up(tmp_path, GATEWAY_MAX_WAITING="0") as (server, _, address),
        full(address, server, AT_WORK),
        connect(address) as client,
    ):
        client.sendall(b"POST /api/v1/classifications HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\nhalf")
        answer = client.recv(65_536)
        # It sends nothing more, and is hung up on.
        with suppress(ConnectionResetError):
            while client.recv(65_536):
                pass

    assert answer.startswith(b"HTTP/1.1 503 ")


def test_probes_and_metrics_are_answered_while_uploads_hold_every_place_and_others_are_thrown_away(tmp_path):
    stop = threading.Event()

    def trickle(address):
        while not stop.is_set():
            with connect(address) as client, suppress(OSError):
                client.sendall(b"POST /check HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n")
                while client.send(b"x") and client.recv(65_536):
                    pass

    with held_up(tmp_path) as (server, _, address), full(address, server), ThreadPoolExecutor(30) as pool:
        for _ in range(30):
            pool.submit(trickle, address)
        try:
            processes.wait_until(lambda: processes.read_metrics(address).get(("admissions_total", "full"), 0) > 40)
            for _ in range(20):
                for path in ("/health/live", "/health/ready", "/metrics"):
                    assert requests.get(f"{address}{path}", timeout=5).ok
        finally:
            stop.set()


def test_one_that_waits_too_long_is_refused_undecoded(tmp_path):
    settings = {"GATEWAY_PREDICT_TIMEOUT_S": "6", "GATEWAY_REQUEST_BUDGET_S": "18.4"}
    with held_up(tmp_path, **settings) as (server, _, address), ThreadPoolExecutor(4) as pool:
        working = [pool.submit(processes.post_picture, address, paint()) for _ in range(AT_WORK)]
        processes.wait_until(lambda: server.pictures == AT_WORK)

        answer = processes.post_picture(address, paint())
        server.go.set()

        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/overloaded")
        assert [done.result().status_code for done in working] == [200] * AT_WORK
        metrics = processes.read_metrics(address)
    assert metrics["admissions_total", "late"] == 1
    assert metrics["stage_seconds_count", "decode"] == AT_WORK
