"""The REST paths that probes read, and what becomes of all others."""

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
    ("method", "path", "headers", "status", "body"),
    [
        ("HEAD", "/v1/models/lesion", {}, 400, ""),
        ("PUT", "/v1/models/lesion", {}, 400, "Malformed request: PUT /v1/models/lesion"),
        ("DELETE", "/v1/models/lesion", {}, 400, "Malformed request: DELETE /v1/models/lesion"),
        ("POST", "/v1/models/lesion", {}, 400, "Malformed request: POST /v1/models/lesion"),
        ("POST", "/v1/models/lesion:PREDICT", {}, 400, "Malformed request: POST /v1/models/lesion:PREDICT"),
        ("POST", "/v1/models/lesion:predict", {}, 501, "the embedded model server answers Predict over gRPC only"),
        ("GET", "/v1/models/lesion:predict", {}, 400, "Malformed request: GET /v1/models/lesion:predict"),
        ("GET", "/v1/models/", {}, 400, "Malformed request: GET /v1/models/"),
        ("GET", "/v1/elsewhere", {}, 400, "Malformed request: GET /v1/elsewhere"),
        ("OPTIONS", "/v1/models/lesion", {"Origin": "https://example.org"}, 200, ""),
        ("OPTIONS", "/v1/models/lesion", {}, 400, ""),
        ("GET", "/v1/models/haut%C3%A4", {}, 404, "Could not find any versions of model hautä"),
    ],
)
def test_rest_refuses_as_the_real_server_does(tiny_server, method, path, headers, status, body):
    answer = answer_to(tiny_server[1], method, path, **headers)

    assert answer[0] == status
    assert answer[2] == (f'{{\n    "error": "{body}"\n}}' if body else "")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize("path", ["/elsewhere", "/monitoring", "/monitoring/other"])
def test_other_paths_are_not_found(tiny_server, method, path):
    status, headers, body = answer_to(tiny_server[1], method, path)

    assert (status, headers["Content-Type"]) == (404, "text/html")
    assert "404 Not Found" in body


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
