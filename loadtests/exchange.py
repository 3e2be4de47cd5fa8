"""One request over HTTP and what came back: the answer, or how the connection ended without one."""

import http.client
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

TIMEOUT_S: Final = 30.0
"""Longer than a gateway's own budget for a request (20 s), so that it is the one to say what went wrong."""

AGENT: Final = "dermserve-loadtests"
_BOUNDARY: Final = "dermserve-loadtests-7f1d8f3c0b"

_FIRST_FAILURE: Final = 400


@dataclass(frozen=True)
class Answer:
    """What a caller got.

    Attributes:
        status: 0 when there was no answer.
        headers: names in small letters.
        body: all of it.
        lost: how the connection ended, when it gave no answer.
        began_s, sent_s, ended_s: of the monotonic clock: first byte out, last byte out, last byte in.
        port: of ours; 0 when there was no connection.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    lost: str = ""
    began_s: float = 0.0
    sent_s: float = 0.0
    ended_s: float = 0.0
    port: int = 0


class AddressError(ValueError):
    """No address of a gateway."""


class Connection:
    """One connection to a gateway, opened when it is needed; a visit has its own, so that balancers deal visits out."""

    def __init__(self, address: str, key: str = "", timeout_s: float = TIMEOUT_S) -> None:
        """Nothing is sent yet.

        Args:
            address: http://host:port or https://host.
            key: of the API, sent as a bearer token; empty for none.
            timeout_s: for each step of an exchange.

        Raises:
            AddressError: it is none.
        """
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise AddressError(f"not http://host:port or https://host: {address!r}")
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self._path = parts.path.rstrip("/")
        self._headers = {"User-Agent": AGENT} | ({"Authorization": f"Bearer {key}"} if key else {})
        if parts.scheme == "https":
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.netloc, timeout=timeout_s, context=ssl.create_default_context()
            )
        else:
            self._connection = http.client.HTTPConnection(parts.netloc, timeout=timeout_s)

    def close(self) -> None:
        """End it."""
        self._connection.close()

    def send(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Sequence[bytes] = (), pause_s: float = 0.0
    ) -> Answer:
        """Send a request and wait for its answer; never raises for what the other side does.

        Args:
            method: of the request.
            path: of the request, with its query.
            headers: beside our own ones.
            body: in pieces.
            pause_s: between pieces.
        """
        began_s, port = time.perf_counter(), 0
        try:
            self._connection.putrequest(method, self._path + path)
            for name, value in (self._headers | dict(headers or {})).items():
                self._connection.putheader(name, value)
            if body:
                self._connection.putheader("Content-Length", str(sum(map(len, body))))
            self._connection.endheaders()
            port = self._connection.sock.getsockname()[1]
            self._send_pieces(body, pause_s)
            sent_s = time.perf_counter()
            with self._connection.getresponse() as response:
                content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Answer(0, lost=type(error).__name__, began_s=began_s, ended_s=time.perf_counter(), port=port)
        received = {name.lower(): value for name, value in response.getheaders()}
        if response.status >= _FIRST_FAILURE:
            # Whoever refuses an upload unread may close behind the answer.
            self._connection.close()
        return Answer(response.status, received, content, "", began_s, sent_s, time.perf_counter(), port)

    def _send_pieces(self, body: Iterable[bytes], pause_s: float) -> None:
        """A server may answer before it has read all, and hang up: then its answer is there to be read."""
        try:
            for number, piece in enumerate(body):
                if number and pause_s:
                    time.sleep(pause_s)
                self._connection.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass


def form(files: Iterable[bytes], fields: Mapping[str, str] | None = None) -> tuple[str, list[bytes]]:
    """A form as a browser sends it: its content type, and its body in pieces.

    Args:
        files: of the field `file`. Their name tells nothing.
        fields: the others.
    """
    pieces = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in (fields or {}).items()
    ]
    for data in files:
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="picture"\r\n'
        pieces += [head.encode() + b"Content-Type: application/octet-stream\r\n\r\n", data, b"\r\n"]
    return f"multipart/form-data; boundary={_BOUNDARY}", [*pieces, f"--{_BOUNDARY}--\r\n".encode()]
