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


class ComeBackError(Exception):
    """A call that is refused for now.

    Attributes:
        seconds: when to try again.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"come back in {seconds:g} s")
        self.seconds = seconds


@dataclass(frozen=True)
class Cell:
    """One contestant with a number of callers, once.

    Attributes:
        callers: at a time.
        rate: answers a second.
        milliseconds: of each answer, from the first try on.
        refused: tries within the window that were refused ("come back later"); the same picture was sent again.
        unanswered: milliseconds, so far, of each caller to whom no answer came within the window.
    """

    callers: int
    rate: float
    milliseconds: tuple[float, ...]
    refused: int
    unanswered: tuple[float, ...]

    def quantile(self, share: float) -> float:
        """Milliseconds within which so many of the answers came; those that have not come count as if they just did."""
        return float(np.quantile(self.milliseconds + self.unanswered, share))


class _Tally:
    """What the callers have done so far."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ended: list[tuple[float, float, int]] = []
        self.refused: list[float] = []
        self.since: dict[int, float] = {}
        self.failures: list[BaseException] = []
        self.stop = threading.Event()

    def work(self, number: int, call: Callable[[], None]) -> None:
        """Until told to stop, or until a call fails.

        Args:
            number: of the caller.
            call: once.
        """
        self.since[number] = time.perf_counter()
        try:
            while not self.stop.is_set():
                try:
                    call()
                except ComeBackError as refusal:
                    with self.lock:
                        self.refused.append(time.perf_counter())
                    self.stop.wait(refusal.seconds)
                    continue
                now = time.perf_counter()
                with self.lock:
                    self.ended.append((now, now - self.since[number], number))
                    self.since[number] = now
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


def measure(calls: Sequence[Callable[[], None]], seconds: float) -> Cell:
    """Watch the callers.

    Args:
        calls: one for each caller; returns when there is a right answer, or raises `ComeBackError`.
        seconds: of the window; it stays open longer where fewer answers have come than there are callers.

    Raises:
        Exception: whatever a call raised.
        TimeoutError: too few answers.
    """
    tally = _Tally()
    threads = [threading.Thread(target=tally.work, args=numbered) for numbered in enumerate(calls)]
    for thread in threads:
        thread.start()
    try:
        opened = tally.wait_for(len(calls), WARM_UP_S)
        closed = tally.wait_for(len(tally.ended) + len(calls), seconds)
        with tally.lock:
            since = dict(tally.since)
    finally:
        tally.stop.set()
        for thread in threads:
            thread.join()
    if tally.failures:
        raise tally.failures[0]
    within = [(took, number) for at, took, number in tally.ended if opened < at <= closed]
    served = {number for _, number in within}
    return Cell(
        callers=len(calls),
        rate=len(within) / (closed - opened),
        milliseconds=tuple(took * 1000 for took, _ in within),
        refused=sum(opened < at <= closed for at in tally.refused),
        unanswered=tuple((closed - since[number]) * 1000 for number in range(len(calls)) if number not in served),
    )
