"""Where records go: a file on this machine that several processes and threads add to."""

import contextlib
import errno
import fcntl
import io
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

import structlog

from gateway.audit.record import START, Event, Head, digest, read_line, write_line
from gateway.errors import AuditUnavailable

MAX_FILE_BYTES: Final = 64_000_000
"""Some 130,000 records. A full file is renamed and the chain goes on in a new one."""

_TAIL_BYTES: Final = 65_536
"""Enough for the longest record (a page of a hundred cases: 4 kB) and what several crashes in a row have left of others."""

MAX_WAIT_S: Final = 2.0
"""For one's turn to write. A turn takes a millisecond: whoever waits so long waits for a process or a disk that hangs, and all
who wait hold a place. The wait for the disk itself has no end that could be set."""

_LOCK_PAUSE_S: Final = 0.002
_OURS_ALONE: Final = 0o600
_log = structlog.get_logger()


class Audit(Protocol):
    """Takes records. What it has not taken must not be answered."""

    def write(self, event: Event) -> Head | None:
        """Add a record; it is on the disk when this returns.

        Returns:
            the chain's new end, None where nothing is recorded.

        Raises:
            AuditUnavailable: it is not recorded.
        """


class NoAudit:
    """Records nothing: the setting is off."""

    def write(self, event: Event) -> Head | None:  # noqa: ARG002  (the protocol's)
        """Forget it."""
        return None


NO_AUDIT: Final = NoAudit()


class FileAudit:
    """JSON lines, one record each; the lock is a file beside it, for a full file is renamed and its successor is another one.

    The lock is held for reading the end and for one write. The wait for the disk comes after it, so that those who write at the
    same time share it: the system brings to the disk what all have written by then.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_FILE_BYTES, max_wait_s: float = MAX_WAIT_S) -> None:
        """One for each process, made after the fork.

        Raises:
            AuditUnavailable: the folder is not there, or not ours to write.
        """
        self._path = path
        self._max_bytes = max_bytes
        self._max_wait_s = max_wait_s
        self._threads = threading.Lock()
        self._last = START
        try:
            self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _OURS_ALONE)
        except OSError as error:
            raise AuditUnavailable(f"{path}: {error}") from error

    def write(self, event: Event) -> Head:
        """As the protocol says."""
        _ = event.picture_sha256  # before the lock, not while the others wait for it
        with contextlib.ExitStack() as opened:
            try:
                with self._locked():
                    file, head = self._append(event, opened)
                os.fsync(file)
            except (OSError, ValueError) as error:
                _log.error("audit record not written", file=str(self._path), reason=str(error))
                raise AuditUnavailable(f"{self._path}: {error}") from error
        return head

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The file's lock is the process's; its threads take turns before it."""
        end_s = time.monotonic() + self._max_wait_s
        if not self._threads.acquire(timeout=self._max_wait_s):
            raise OSError(errno.ETIMEDOUT, "the others do not come to an end")
        try:
            while not self._take_lock():
                if time.monotonic() > end_s:
                    raise OSError(errno.ETIMEDOUT, "another process holds the lock")
                time.sleep(_LOCK_PAUSE_S)
            try:
                yield
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def _take_lock(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _append(self, event: Event, opened: contextlib.ExitStack) -> tuple[int, Head]:
        file = self._open(opened)
        size = os.fstat(file).st_size
        end = _read_end(file, size)
        previous = end.head or self._archived_end()
        now = datetime.now(UTC)
        repair = b"" if end.is_closed else b"\n"
        if end.torn:
            _log.error("audit record torn", file=str(self._path), after=str(previous), bytes=len(end.torn))
            recovered = Event("gateway", "recovered", event.request_id, "torn", digest(end.torn))
            line, previous = write_line(recovered, now, previous)
            repair += line
        elif end.is_closed and size >= self._max_bytes:
            self._path.rename(f"{self._path}.{previous.sequence:012}")
            file, size = self._open(opened), 0
        if previous.sequence < self._last.sequence:
            _log.error("audit chain shorter than it was", file=str(self._path), was=str(self._last), found=str(previous))
        line, head = write_line(event, now, previous)
        _write(file, size, repair + line)
        self._last = head
        if not size:
            self._keep_names(opened)
        return file, head

    def _open(self, opened: contextlib.ExitStack) -> int:
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _OURS_ALONE)
        opened.callback(os.close, file)
        return file

    def _archived_end(self) -> Head:
        """Of the newest full file; a process may have ended between its renaming and the first record of the next one."""
        full = sorted(self._path.parent.glob(f"{self._path.name}.{'[0-9]' * 12}"))
        if not full:
            return START
        with full[-1].open("rb") as file:
            end = _read_end(file.fileno(), os.fstat(file.fileno()).st_size)
        if end.torn or end.head is None:
            raise ValueError(f"{full[-1].name} does not end with a record")
        return end.head

    def _keep_names(self, opened: contextlib.ExitStack) -> None:
        """A new file survives a power cut only when its folder has reached the disk too."""
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        opened.callback(os.close, folder)
        os.fsync(folder)


@dataclass(frozen=True)
class _End:
    """How a file ends.

    Attributes:
        head: of the last whole record, None when there is none.
        torn: what a crash has left behind it.
        is_closed: the last line has its end. One that has nothing else missing is a whole record.
    """

    head: Head | None
    torn: bytes
    is_closed: bool


def _read_end(file: int, size: int) -> _End:
    """Look for the last record.

    Raises:
        ValueError: a complete last line that is no record of ours. No crash does that, so nobody shall build on it.
    """
    start = max(0, size - _TAIL_BYTES)
    data = os.pread(file, size - start, start)
    is_closed = data.endswith(b"\n") or not data
    lines = io.BytesIO(data).readlines()
    if start:
        del lines[0]  # its beginning is not here
    torn = b""
    while lines:
        line = lines.pop()
        try:
            return _End(read_line(line.removesuffix(b"\n") + b"\n").head, torn, is_closed)
        except ValueError:
            if is_closed:
                raise
            torn = line + torn
    if start:
        raise ValueError("there is no record near its end")
    return _End(None, torn, is_closed)


def _write(file: int, size: int, data: bytes) -> None:
    """All of it or nothing."""
    written = os.write(file, data)
    if written != len(data):
        # Ours, not yet anybody's record, and reported: nothing is lost by taking it back.
        with contextlib.suppress(OSError):
            os.ftruncate(file, size)
        raise OSError(errno.ENOSPC, "there is no room for a record")
