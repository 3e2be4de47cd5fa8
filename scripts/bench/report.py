"""What a run writes: the page's part, its chart, and the figures as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.bench.charts import draw
from scripts.bench.contestants import CONTESTANTS, DERMSERVE
from scripts.bench.figures import Standing, stand
from scripts.bench.page import BLOCK, CHART, FIGURES, MAX_OTHERS, write
from scripts.bench.visits import Visit
from scripts.documents import replace_block

NAMES = [contestant.name for contestant in CONTESTANTS]


@dataclass(frozen=True)
class Run:
    """What makes two runs comparable.

    Attributes:
        machine: commit, processors, Python.
        rounds, callers, seconds: of each measurement.
    """

    machine: str
    rounds: int
    callers: tuple[int, ...]
    seconds: float


def standings(visits: Sequence[Visit]) -> dict[str, Standing]:
    """Of every contestant without a fault, in the order of the list."""
    faulty = {one.contestant for one in visits if one.fault}
    names = [name for name in NAMES if name not in faulty]
    return {name: stand([one for one in visits if one.contestant == name]) for name in names}


def publish(docs: Path, visits: Sequence[Visit], run: Run) -> bool:
    """Write everything; say whether the run is worth anything."""
    stands = standings(visits)
    if DERMSERVE not in stands:
        print("not written: Dermserve itself has a fault, see above")
        return False
    (docs / "figures").mkdir(exist_ok=True)
    faults = {one.contestant: one.fault for one in visits if one.fault}
    contestants = {name: asdict(standing) for name, standing in stands.items()}
    document = {**asdict(run), "contestants": contestants, "faults": faults}
    (docs / FIGURES).write_text(json.dumps(document, indent=1) + "\n")
    draw(stands, docs / CHART)
    told = write(visits, stands, run.machine, run.rounds, run.seconds)
    replace_block(docs / "benchmarks.md", BLOCK, told)
    print(told)
    return max(one.others for visited in visits for one in visited.measured) <= MAX_OTHERS
