"""Circuit breaker: a model server that is away, or does not answer, is not waited for by every picture.

After Nygard, Release It!, chapter "Stability Patterns". Whatever a server says, a refusal included, shows that it is there:
only silence counts.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway import metrics
from gateway.errors import ModelServerUnavailable

FAILURES: Final = 5
"""In a row. One may be a replica that has died; five without one answer between them are not."""

PAUSE_S: Final = 2.0
"""Until one picture tries again. Twice gRPC's longest back-off: whoever tries earlier finds a channel that has not tried."""


@dataclass(frozen=True)
class Call:
    """One that was let through.

    Attributes:
        begun_s: when.
        is_trial: the only one that is let through after a pause.
    """

    begun_s: float
    is_trial: bool


class Breaker:
    """Closed: calls pass. Open: they fail at once. Half open: one has passed, and its end decides."""

    def __init__(self, channel: str, now_s: Callable[[], float] = time.monotonic) -> None:
        self._channel = channel
        self._now_s = now_s
        self._lock = threading.Lock()
        self._failures = 0
        self._first_failure_s = self._open_until_s = 0.0
        self._enter("closed")

    def begin(self) -> Call:
        """Let a call through.

        Raises:
            ModelServerUnavailable: not now.
        """
        with self._lock:
            now_s = self._now_s()
            is_trial = self._state == "open" and now_s >= self._open_until_s
            if self._state != "closed" and not is_trial:
                raise ModelServerUnavailable("the circuit breaker is open: the last calls got no answer")
            if is_trial:
                self._enter("half_open")
            return Call(now_s, is_trial)

    def end(self, call: Call, is_answered: bool | None) -> None:
        """Take note of how it ended.

        Args:
            call: what `begin` gave.
            is_answered: by the server, whatever it said; None when that was not to be found out.
        """
        with self._lock:
            now_s = self._now_s()
            if is_answered:
                self._failures = 0
                self._enter("closed")
            elif call.is_trial:
                self._open_until_s = now_s if is_answered is None else now_s + PAUSE_S
                self._enter("open")
            elif is_answered is False and self._state == "closed":
                self._first_failure_s = self._first_failure_s if self._failures else now_s
                self._failures += 1
                # A replica that hangs among good ones takes every thread in the end, and all of them give up at once. So one
                # round of failures is not enough: the last call must have begun after the first one failed.
                if self._failures >= FAILURES and call.begun_s >= self._first_failure_s:
                    self._open_until_s = now_s + PAUSE_S
                    self._enter("open")

    def _enter(self, state: metrics.BreakerState) -> None:
        self._state: metrics.BreakerState = state
        for name in metrics.BREAKER_STATES:
            metrics.BREAKERS.labels(self._channel, name).set(name == state)
