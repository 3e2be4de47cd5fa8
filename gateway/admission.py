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
        self._places = threading.BoundedSemaphore(at_work + waiting)
        self._max_wait_s = max_wait_s
        self._lock = threading.Lock()
        self._free = at_work
        self._queue: deque[threading.Event] = deque()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Be present. Never waits; taken before the upload is read.

        Raises:
            GatewayOverloaded: every place is taken.
        """
        if not self._places.acquire(blocking=False):
            metrics.ADMISSIONS.labels("full").inc()
            raise GatewayOverloaded("every place is taken")
        try:
            with metrics.PICTURES.labels("present").track_inprogress():
                yield
        finally:
            self._places.release()

    @contextmanager
    def work(self) -> Iterator[None]:
        """Be worked on, as soon as it is one's turn.

        Raises:
            GatewayOverloaded: one's turn did not come in time.
        """
        with metrics.PICTURES.labels("waiting").track_inprogress():
            is_admitted = self._wait()
        metrics.ADMISSIONS.labels("admitted" if is_admitted else "late").inc()
        if not is_admitted:
            raise GatewayOverloaded("the turn did not come in time")
        try:
            with metrics.PICTURES.labels("at_work").track_inprogress():
                yield
        finally:
            self._pass_on()

    def _wait(self) -> bool:
        turn = threading.Event()
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            self._queue.append(turn)
        if turn.wait(deadline.remaining_s(self._max_wait_s)):
            return True
        with self._lock:
            if turn.is_set():
                return True
            self._queue.remove(turn)
        return False

    def _pass_on(self) -> None:
        """Hand the turn to the one that has waited longest; nobody who comes now can snatch it."""
        with self._lock:
            if self._queue:
                self._queue.popleft().set()
            else:
                self._free += 1
