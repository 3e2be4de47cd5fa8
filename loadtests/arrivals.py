"""An open loop: visits begin when they are due, however long those before them take.

Callers who wait for an answer before they ask again slow down with the server and hide how slow it is (coordinated omission).
Here each visit has a time at which it is due, and its answer's time counts from then: also when this program comes late.
"""

import random
import time
from collections.abc import Callable
from typing import Final, Literal

import gevent
from gevent.pool import Pool

Spacing = Literal["poisson", "constant"]

MAX_VISITS: Final = 2_000
"""At a time, of one process. Further ones are not made, and counted as unsent: the run then says less than it claims."""

_SLICE_S: Final = 0.05


class Arrivals:
    """Begins visits at a rate that may change."""

    def __init__(
        self,
        rate: Callable[[], float],
        visit: Callable[[float], None],
        drop: Callable[[], None],
        spacing: Spacing,
        chance: random.Random,
    ) -> None:
        """Nothing begins before `run`.

        Args:
            rate: visits a second, asked again all the time.
            visit: makes one that was due then.
            drop: is told of one for which there is no room.
            spacing: by chance, as people come; or evenly.
            chance: for the former.
        """
        self._rate = rate
        self._visit = visit
        self._drop = drop
        self._spacing = spacing
        self._chance = chance
        self._pool = Pool(MAX_VISITS)

    def run(self) -> None:
        """Until it is killed."""
        last_s = time.perf_counter()
        # Of what the next one waits for: the rate's integral reaches it after one mean gap, or a random multiple of it.
        missing = self._gap()
        while True:
            rate = self._rate()
            due_s = last_s + missing / rate if rate > 0 else float("inf")
            until_s = min(due_s, last_s + _SLICE_S)
            gevent.sleep(max(0.0, until_s - time.perf_counter()))
            missing -= rate * (until_s - last_s)
            last_s = until_s
            if until_s == due_s:
                self._begin(due_s)
                missing = self._gap()

    def _begin(self, due_s: float) -> None:
        if self._pool.free_count() > 0:
            self._pool.spawn(self._visit, due_s)
        else:
            self._drop()

    def _gap(self) -> float:
        return self._chance.expovariate(1.0) if self._spacing == "poisson" else 1.0
