"""Where spans begin and end. Without a tracer, which the composition root installs, all of it does nothing and loads nothing.

Steps of one request (`span`, `call`) are children of what serves it (`serve`) and are left out where nothing does: work in the
background, and probes of a model server that was asked by nobody, make no traces.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

Attribute = str | int | float | bool

TRACEPARENT: Final = "traceparent"
"""Header of W3C Trace Context, in HTTP and gRPC. Its companion `tracestate`, free text of the caller's, is not read."""


class Tracer(Protocol):
    """Makes spans and sends them off."""

    def serve(self, name: str, traceparent: str | None) -> AbstractContextManager[None]:
        """A request that somebody sent, as part of the trace that its header names."""
        ...

    def span(self, name: str, *, is_call: bool = False) -> AbstractContextManager[None]:
        """A step of what is being served."""
        ...

    def describe(self, name: str | None, attributes: Mapping[str, Attribute], *, is_error: bool = False) -> None:
        """Of the innermost span; a name replaces its own."""
        ...

    def traceparent(self) -> str | None:
        """Header that makes another program's spans children of the innermost one."""
        ...

    def trace_id(self) -> str | None:
        """32 hexadecimal digits."""
        ...

    def record(
        self, traceparent: str | None, name: str, start_s: float, end_s: float, attributes: Mapping[str, Attribute]
    ) -> None:
        """A span that is over already, by the monotonic clock, under the one that the header names."""
        ...


_OFF: Final = nullcontext()
_tracers: list[Tracer] = []


def install(tracer: Tracer | None) -> None:
    """For the whole process; None takes it away."""
    _tracers[:] = [tracer] if tracer else []


def serve(name: str, traceparent: str | None) -> AbstractContextManager[None]:
    """See `Tracer.serve`."""
    return _tracers[0].serve(name, traceparent) if _tracers else _OFF


def span(name: str) -> AbstractContextManager[None]:
    """See `Tracer.span`."""
    return _tracers[0].span(name) if _tracers else _OFF


def call(name: str) -> AbstractContextManager[None]:
    """A step that another program does."""
    return _tracers[0].span(name, is_call=True) if _tracers else _OFF


def describe(name: str | None, attributes: Mapping[str, Attribute], *, is_error: bool = False) -> None:
    """See `Tracer.describe`."""
    if _tracers:
        _tracers[0].describe(name, attributes, is_error=is_error)


def traceparent() -> str | None:
    """See `Tracer.traceparent`."""
    return _tracers[0].traceparent() if _tracers else None


def trace_id() -> str | None:
    """See `Tracer.trace_id`."""
    return _tracers[0].trace_id() if _tracers else None


def record(traceparent: str | None, name: str, start_s: float, end_s: float, attributes: Mapping[str, Attribute]) -> None:
    """See `Tracer.record`. Nothing without a header."""
    if _tracers and traceparent:
        _tracers[0].record(traceparent, name, start_s, end_s, attributes)
