"""One canonical line a request: JSON, or readable on a terminal. Never a picture, a file name or its metadata."""

import hashlib
import logging
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO, cast

import structlog

from serving import tracing

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,63}")


class _Lines:
    """A stream that may lose lines: no answer depends on whether there is room for its own (a full disk, a reader gone)."""

    def __init__(self, stream: TextIO, on_loss: Callable[[], None]) -> None:
        self._stream = stream
        self._on_loss = on_loss

    def write(self, line: str) -> None:
        with self._counted():
            self._stream.write(line)

    def flush(self) -> None:
        with self._counted():
            self._stream.flush()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self._on_loss()


def _ignore() -> None:
    """Nobody counts."""


def configure(on_loss: Callable[[], None] = _ignore) -> None:
    """Set structlog up for the process.

    Args:
        on_loss: is told of each line that could not be written.
    """
    renderer: structlog.types.Processor = structlog.processors.JSONRenderer()
    processors: list[structlog.types.Processor] = [
        structlog.processors.add_log_level,
        _add_trace_id,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if sys.stderr.isatty():
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    else:
        # Without local variables: they hold the upload.
        transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        processors.append(structlog.processors.ExceptionRenderer(transformer))
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # A line and its end in one write: between two of them another process's line would come.
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Lines(sys.stderr, on_loss))),
        cache_logger_on_first_use=True,
    )


def _add_trace_id(_: structlog.types.WrappedLogger, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """To find the trace of a line, where there are traces."""
    trace_id = tracing.trace_id()
    return {**event, "trace_id": trace_id} if trace_id else event


def request_id(given: str | None) -> str:
    """The caller's id when it is harmless, otherwise a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())


def case_code(request_id: str) -> str:
    """What a person can read out to find the request in the log; a hash, for the ids of one caller may all begin alike."""
    return hashlib.sha256(request_id.encode()).hexdigest()[:8]
