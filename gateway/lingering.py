"""What becomes of an upload that was refused unread.

A server that closes the connection while the client still sends makes the kernel reset it, and the client may never see the
answer. So the answer goes out first and the rest of the upload is read and thrown away, within bounds (RFC 9112, section 9.6;
nginx's lingering close). gunicorn does so for 64 kB only, and beyond it in the one thread that accepts connections.
"""

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

MAX_LINGERING: Final = 8
"""Uploads of one process that are thrown away at a time: each holds a thread (gunicorn.conf.py has as many for it)."""

_LINGER_S: Final = 2.0
"""After the answer: for a client that reads only after it has sent all. Browsers and proxies read meanwhile."""

_CHUNK_BYTES: Final = 65_536

_free = threading.BoundedSemaphore(MAX_LINGERING)


def throw_away(environ: "WSGIEnvironment", max_bytes: int) -> None:
    """Read what is left of the upload; hang up when it is too much, too slow, or too many are at it. Only under gunicorn."""
    connection = environ.get("gunicorn.socket")
    if connection is None:
        return
    if not _free.acquire(blocking=False):
        _hang_up(connection)
        return
    # The end is the connection's, not one read's: a client that sends a byte a second would pass every read's timeout.
    alarm = threading.Timer(_LINGER_S, _hang_up, (connection,))
    alarm.start()
    try:
        while max_bytes > 0 and (chunk := environ["wsgi.input"].read(_CHUNK_BYTES)):
            max_bytes -= len(chunk)
        if max_bytes <= 0:
            _hang_up(connection)
    except OSError:
        _hang_up(connection)
    finally:
        alarm.cancel()
        _free.release()


def _hang_up(connection: socket.socket) -> None:
    """Both ways: a read ends, and gunicorn has nothing left to wait for when it closes."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
