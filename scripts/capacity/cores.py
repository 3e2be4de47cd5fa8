"""Processors that whoever runs shares. Part of the simulation in simulation.py."""

import heapq
import itertools

import simpy

MOMENT_S = 1e-9
"""Less than this is rounding."""


class Cores:
    """Processor sharing: whoever runs gets as many cores as it can use, and all are slowed alike once that is too many.

    Each job's end is known in a time of the cores' own, which goes slower the more is to be done; so one heap is enough.
    """

    def __init__(self, env: simpy.Environment, count: float) -> None:
        self.busy_s = 0.0
        self._env = env
        self._count = count
        self._demand = self._own_s = self._since_s = 0.0
        self._jobs: list[tuple[float, int, float, simpy.Event]] = []
        self._numbers = itertools.count()
        self._plan_number = 0

    def run(self, cpu_s: float, width: float = 1.0) -> simpy.Event:
        """An event that comes when so much processor time is spent, on at most `width` cores at once."""
        done = self._env.event()
        if cpu_s <= 0:
            return done.succeed()
        self._advance()
        width = min(width, self._count)
        heapq.heappush(self._jobs, (self._own_s + cpu_s / width, next(self._numbers), width, done))
        self._demand += width
        self._plan()
        return done

    def _speed(self) -> float:
        return min(1.0, self._count / self._demand) if self._demand > MOMENT_S else 1.0

    def _advance(self) -> None:
        elapsed_s = self._env.now - self._since_s
        self._own_s += elapsed_s * self._speed()
        self.busy_s += elapsed_s * min(self._demand, self._count)
        self._since_s = self._env.now

    def _plan(self) -> None:
        self._plan_number += 1
        if self._jobs:
            timer = self._env.timeout(max(self._jobs[0][0] - self._own_s, 0.0) / self._speed(), self._plan_number)
            assert timer.callbacks is not None  # noqa: S101  (simpy's type of an event that is still to come)
            timer.callbacks.append(self._finish)

    def _finish(self, timer: simpy.Event) -> None:
        if timer.value != self._plan_number:
            return
        self._advance()
        while self._jobs and self._jobs[0][0] <= self._own_s + MOMENT_S:
            _, _, width, done = heapq.heappop(self._jobs)
            self._demand -= width
            done.succeed()
        self._plan()
