"""An engine without a server: callers are threads of its own process. HTTP, queues and other processes are not in its figures.

Speaks JSON lines: {"picture": file} gives the answer; with "expected", "callers" and "seconds" too it measures, and gives the
cell.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scripts.bench.load import measure
from scripts.bench.pixels import read_bytes
from scripts.bench.tolerance import Answer, check

Network = Callable[[npt.NDArray[np.uint8]], Answer]
"""[1, 224, 224, 3] -> the answer. May be called from many threads at once."""


def serve(load: Callable[[int], Network]) -> None:
    """Read and answer until the input ends.

    Args:
        load: makes the network ready for so many callers at a time.
    """
    # What an engine prints must not come between the lines.
    answers, sys.stdout = sys.stdout, sys.stderr
    callers, network = 1, load(1)
    for line in sys.stdin:
        asked = json.loads(line)
        picture = Path(asked["picture"]).read_bytes()
        if asked.get("callers", 1) != callers:
            callers = asked["callers"]
            network = load(callers)
        if "seconds" in asked:
            call = _checked(network, picture, Answer(**asked["expected"]))
            told = asdict(measure([call] * callers, asked["seconds"]))
        else:
            told = asdict(network(read_bytes(picture)[None]))
        print(json.dumps(told), file=answers, flush=True)


def _checked(network: Network, picture: bytes, expected: Answer) -> Callable[[], None]:
    def call() -> None:
        check("timed", network(read_bytes(picture)[None]), expected)

    return call
