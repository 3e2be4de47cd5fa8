"""Room on the disk for the files in which a process counts.

The library maps them into memory with holes in them. A hole that is written while the disk is full ends the process without a
word (SIGBUS), with every request that it holds: so the room is taken before the process serves anybody.
"""

import contextlib
from pathlib import Path
from typing import Final

KINDS: Final = ("counter", "histogram", "gauge_livemax", "gauge_livesum", "gauge_mostrecent")
"""The library's first halves of the names: types, and the modes of gauges."""

BYTES: Final = 1 << 18
"""Of each. A process that classifies on one route uses 31,000 of the largest; beyond it the library makes holes again."""


def reserve(folder: Path, pid: int) -> None:
    """Before the process makes its first metric. What another process with this number has counted stays.

    Raises:
        OSError: there is no room; then no file is there that was not there before.
    """
    with contextlib.ExitStack() as undone:
        for kind in KINDS:
            path = folder / f"{kind}_{pid}.db"
            with path.open("ab", buffering=0) as file:
                missing = BYTES - file.tell()
                if missing == BYTES:
                    undone.callback(path.unlink)
                while missing > 0:
                    missing -= file.write(bytes(missing))
        undone.pop_all()
