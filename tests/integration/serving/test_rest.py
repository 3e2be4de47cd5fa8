"""REST as only the embedded model server has it: what else it refuses, and bodies that it does not read."""

import http.client
import json
import socket
from contextlib import closing

import pytest


def answer_to(rest_port, method, path, **headers):
    with closing(http.client.HTTPConnection("127.0.0.1", rest_port, timeout=10)) as connection:
        connection.putrequest(method, path)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("DELETE", "/v1/models/lesion", 400, "Malformed request: DELETE /v1/models/lesion"),
        ("POST", "/v1/models/lesion:predict", 501, "the embedded model server answers Predict over gRPC only"),
    ],
)
def test_what_the_real_server_was_not_asked_or_does_is_refused(tiny_server, method, path, status, text):
    answer = answer_to(tiny_server[1], method, path)

    assert (answer[0], json.loads(answer[2])) == (status, {"error": text})


@pytest.mark.parametrize("length", ["-1", "abc", "99999999999"])
def test_rest_waits_for_no_body(tiny_server, length):
    status, headers, body = answer_to(tiny_server[1], "POST", "/v1/models/lesion", Content_Length=length)

    assert (status, headers["Connection"]) == (400, "close")
    assert json.loads(body) == {"error": "Malformed request: POST /v1/models/lesion"}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_body_is_never_taken_for_the_next_request(tiny_server, method):
    with socket.create_connection(("127.0.0.1", tiny_server[1]), timeout=10) as connection:
        connection.sendall(
            f"{method} /v1/models/lesion HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            + b"GET /v1/models/other HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        with connection.makefile("rb") as file:
            status, rest = file.readline(), file.read()

    assert status.startswith(b"HTTP/1.1 200" if method == "GET" else b"HTTP/1.1 400")
    assert b"HTTP/1.1" not in rest
