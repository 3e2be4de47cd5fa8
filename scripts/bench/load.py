"""So many callers that call without a pause, watched through a window. Needs NumPy only: it also runs beside the engines.

Other than `scripts.callers.drive` it does not wait for the last answers: a way that takes seconds for an answer would be idle
for most of a short measurement. What is counted are the answers that come within the window; it opens when so many answers have
come as there are callers.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

WARM_UP_S = 0.5
"""At least this long; and until so many answers have come as there are callers."""

PATIENCE_S = 60.0
"""A way that has not come so far within this ends the measurement."""

_POLL_S = 0.005


@dataclass(frozen=True)
class Cell:
    """One contestant with a number of callers, once.

    Attributes:
        callers: at a time.
        rate: answers a second.
        milliseconds: of each answer, from the first try on.
        refused: tries within the window that were refused ("come back later"); the same picture was sent again.
    """

    callers: int
    rate: float
    milliseconds: tuple[float, ...]
    refused: int

    def quantile(self, share: float) -> float:
        """Milliseconds within which so many of the answers came."""
        return float(np.quantile(self.milliseconds, share))


class _Tally:
    """What the callers have done so far."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ended: list[tuple[float, float]] = []
        self.refused: list[float] = []
        self.failures: list[BaseException] = []
        self.stop = threading.Event()

    def work(self, call: Callable[[], int]) -> None:
        """Until told to stop, or until a call fails."""
        try:
            while not self.stop.is_set():
                sent = time.perf_counter()
                refusals = call()
                now = time.perf_counter()
                with self.lock:
                    self.ended.append((now, now - sent))
                    self.refused += refusals * [now]
        except Exception as error:  # noqa: BLE001  (the edge of a thread)
            self.failures.append(error)
            self.stop.set()

    def wait_for(self, answers: int, seconds: float) -> float:
        """Until so many answers have come in all and so much time has passed. Gives the moment."""
        started = time.perf_counter()
        while len(self.ended) < answers or time.perf_counter() < started + seconds:
            if self.stop.wait(_POLL_S):
                break
            if time.perf_counter() > started + PATIENCE_S:
                raise TimeoutError(f"{len(self.ended)} answers of {answers} after {PATIENCE_S:g} s")
        return time.perf_counter()


def measure(calls: Sequence[Callable[[], int]], seconds: float) -> Cell:
    """Watch the callers.

    Args:
        calls: one for each caller; returns when there is a right answer, and says how often it was refused before.
        seconds: of the window; it stays open longer where fewer answers have come than there are callers.

    Raises:
        Exception: whatever a call raised.
        TimeoutError: too few answers.
    """
    tally = _Tally()
    threads = [threading.Thread(target=tally.work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    try:
        opened = tally.wait_for(len(calls), WARM_UP_S)
        closed = tally.wait_for(len(tally.ended) + len(calls), seconds)
    finally:
        tally.stop.set()
        for thread in threads:
            thread.join()
    if tally.failures:
        raise tally.failures[0]
    taken = [took * 1000 for at, took in tally.ended if opened < at <= closed]
    return Cell(len(calls), len(taken) / (closed - opened), tuple(taken), sum(opened < at <= closed for at in tally.refused))
