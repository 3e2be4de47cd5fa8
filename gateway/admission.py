"""Admission control: how many pictures a process takes in, and how many of them it works on at a time.

More than it can answer in time would only make all of them late: beyond the bounds a picture is refused at once, before its
bytes are read (Site Reliability Engineering, chapter "Handling Overload"; Little's law gives the numbers, docs/overload.md).
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from gateway import deadline, metrics
from gateway.errors import GatewayOverloaded


class Admission:
    """Places for pictures that are present, fewer for those that are worked on.

    The queue is first come, first served. Last come, first served keeps some fast while a long queue goes stale; this one is
    so short that whoever is let in is nearly always in time, and then the order is a matter of fairness. Who waits too long, or
    whose time is over, leaves it and is not worked on.
    """

    def __init__(self, at_work: int, waiting: int, max_wait_s: float) -> None:
        """One for each process.

        Args:
            at_work: pictures that are worked on at a time.
            waiting: that may be present beside them: their upload is coming in, or they wait to be worked on.
            max_wait_s: for being worked on.
        """
        self._at_work = at_work
        self._room = at_work + waiting
        self._max_wait_s = max_wait_s
        self._lock = threading.Lock()
        self._free = at_work
        self._queue: deque[_Turn] = deque()
        for result in ("admitted", "full", "late"):
            metrics.ADMISSIONS.labels(result)

    def counted(self, pictures: int) -> int:
        """As how many pictures an upload of several counts: at most as many as can be worked on at a time."""
        return min(pictures, self._at_work)

    @contextmanager
    def place(self, pictures: int = 1) -> Iterator[None]:
        """Be present. Never waits; the first one is taken before the upload is read.

        Raises:
            GatewayOverloaded: there are not so many places.
        """
        with self._lock:
            is_free = self._room >= pictures
            self._room -= pictures if is_free else 0
        if not is_free:
            metrics.ADMISSIONS.labels("full").inc(pictures)
            raise GatewayOverloaded("every place is taken")
        try:
            with _counted("present", pictures):
                yield
        finally:
            with self._lock:
                self._room += pictures

    @contextmanager
    def work(self, pictures: int = 1) -> Iterator[None]:
        """Be worked on, as soon as it is one's turn: all that is counted for an upload at once, or none of it.

        Raises:
            GatewayOverloaded: one's turn did not come in time.
        """
        with _counted("waiting", pictures):
            is_admitted = self._wait(pictures)
        metrics.ADMISSIONS.labels("admitted" if is_admitted else "late").inc(pictures)
        if not is_admitted:
            raise GatewayOverloaded("the turn did not come in time")
        try:
            with _counted("at_work", pictures):
                yield
        finally:
            with self._lock:
                self._free += pictures
                self._pass_on()

    @contextmanager
    def spare(self) -> Iterator[None]:
        """Be worked on without having been sent by anybody: only where nobody waits and a turn is free. Counted nowhere.

        Raises:
            GatewayOverloaded: every turn is taken.
        """
        with self._lock:
            # One is left for whoever comes: it must not have to wait for this.
            if self._queue or self._free < min(2, self._at_work):
                raise GatewayOverloaded("no turn is to spare")
            self._free -= 1
        try:
            yield
        finally:
            with self._lock:
                self._free += 1
                self._pass_on()

    def _wait(self, pictures: int) -> bool:
        turn = _Turn(pictures)
        with self._lock:
            self._queue.append(turn)
            self._pass_on()
        if turn.has_come.wait(deadline.remaining_s(self._max_wait_s)):
            return True
        with self._lock:
            if turn.has_come.is_set():
                return True
            self._queue.remove(turn)
            # It may have stood before others that need less.
            self._pass_on()
        return False

    def _pass_on(self) -> None:
        """Hand the turns to those that have waited longest; nobody who comes now can snatch one, nor does a batch starve."""
        while self._queue and self._queue[0].pictures <= self._free:
            turn = self._queue.popleft()
            self._free -= turn.pictures
            turn.has_come.set()


class _Turn:
    """One that waits to be worked on."""

    def __init__(self, pictures: int) -> None:
        self.pictures = pictures
        self.has_come = threading.Event()


@contextmanager
def _counted(state: str, pictures: int) -> Iterator[None]:
    gauge = metrics.PICTURES.labels(state)
    gauge.inc(pictures)
    try:
        yield
    finally:
        gauge.dec(pictures)
