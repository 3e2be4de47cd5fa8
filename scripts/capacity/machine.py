"""Whether anything else computed while something was measured: then the figures are not those of the stack. Linux only."""

import os
import time
from pathlib import Path

import psutil

_BUSY = (0, 1, 2, 7)
"""Of the first line of /proc/stat: user, nice, system, and steal, which the hypervisor gave to others. Interrupts are left out:
most of them are the loopback's, for what we send ourselves."""


class Others:
    """The share of all processors that this process and its children did not use, but somebody did."""

    def __init__(self) -> None:
        self._started_s = time.perf_counter()
        self._busy_s, self._ours_s = _busy_s(), _ours_s()

    def share(self) -> float:
        """Since it was made."""
        elapsed_s = (time.perf_counter() - self._started_s) * (os.cpu_count() or 1)
        return max((_busy_s() - self._busy_s) - (_ours_s() - self._ours_s), 0.0) / elapsed_s


def _busy_s() -> float:
    columns = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    return sum(int(columns[index]) for index in _BUSY) / os.sysconf("SC_CLK_TCK")


def _ours_s() -> float:
    here = psutil.Process()
    return sum(sum(member.cpu_times()[:2]) for member in (here, *here.children(recursive=True)))
