"""Memory that a process has for itself, at like moments of a run."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

MAX_GROWTH = 0.02
SAMPLE_S = 0.5


@dataclass(frozen=True)
class Growth:
    """Of one process, between two moments.

    Attributes:
        name: of what it is.
        before, after: bytes; 0 where it was not there.
    """

    name: str
    before: float
    after: float

    @property
    def share(self) -> float:
        """What has come, of what was there."""
        return self.after / self.before - 1


def sample(pids: Mapping[str, int], seconds: float) -> dict[tuple[str, int], float]:
    """Private memory (USS) of each process: the median over so long, for it goes up and down with what is under way.

    Args:
        pids: name -> pid.
        seconds: for how long.
    """
    seen: dict[tuple[str, int], list[float]] = {(name, pid): [] for name, pid in pids.items()}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for (_, pid), values in seen.items():
            values.append(psutil.Process(pid).memory_full_info().uss)
        time.sleep(SAMPLE_S)
    return {process: statistics.median(values) for process, values in seen.items()}


def compare(before: Mapping[tuple[str, int], float], after: Mapping[tuple[str, int], float]) -> tuple[list[Growth], list[str]]:
    """What each process has grown by; and which are not the same processes any more: those would hide what has grown."""
    faults = [f"{name} is another process than before, and nobody had killed it" for name, _ in after.keys() ^ before.keys()]
    return [Growth(process[0], before[process], after[process]) for process in sorted(before.keys() & after.keys())], faults
