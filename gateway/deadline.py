"""The time by which a request must be answered; what is asked for it gets what is left.

It goes with the thread that works on the request, as gRPC's own deadlines go with its context: no step in between need hand it
on. Work that nobody waits for (a picture shown to the canary), and probes, have none, and their own limits only.
"""

import contextvars
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

_END_S: contextvars.ContextVar[float] = contextvars.ContextVar("deadline", default=math.inf)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What happens inside has so many seconds, or less if what is around it has less."""
    token = _END_S.set(min(_END_S.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _END_S.reset(token)


def remaining_s(at_most: float) -> float:
    """Seconds that are left, never more than `at_most`; 0 when the time is over."""
    return max(min(at_most, _END_S.get() - time.monotonic()), 0.0)
