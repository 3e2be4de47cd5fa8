"""`python -m scripts.capacity DOCS`: what a picture costs, and a simulation beside a run of the stack; DOCS/capacity.md.

First the costs are measured, one request or batch at a time. Then pictures arrive at random at the real stack, and the same
arrivals at the simulation, which knows nothing of that run but when a picture came. The costs are measured again at the end:
where the two differ, the machine changed meanwhile. Run it with nothing else running. Ends with 1 when something else ran, or
the simulation does not do what the stack did.
"""

import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from scripts.callers import processor
from scripts.capacity import callers
from scripts.capacity.calibration import PICTURE_SIZE, Bench, bench, calibrate, decoding_s, middle
from scripts.capacity.charts import draw_latencies, draw_utilisation
from scripts.capacity.comparison import Compared, interval, summarize
from scripts.capacity.machine import Others
from scripts.capacity.page import write
from scripts.capacity.settings import released
from scripts.capacity.simulation import ANSWERED, Costs, Deployment, Outcomes, poisson, simulate
from scripts.capacity.storage import Bytes, count
from tests import processes

LOADS = (0.4, 0.6, 0.8, 1.5)
"""Times the capacity; the last one is too much."""

ROUNDS = 2
SECONDS = 20.0
"""Of each load in each round."""

WARM_UP = (20.0, 2.0)
"""Pictures a second, and seconds, before each load: the first pictures after a pause are slow."""

ENOUGH = 1.2
"""Times what the cores have time for."""

MAX_OTHERS = 0.05
"""Share of the processors; above it the run says nothing about the stack."""


@dataclass(frozen=True)
class Run:
    """Everything that was found.

    Attributes:
        machine: processors, versions, commit.
        calibrations: before and after.
        costs: their medians.
        decoding_s: of one picture.
        size: bytes of one picture.
        capacity: pictures a second, of the simulation.
        compared: a row for each load.
    """

    machine: str
    calibrations: list[Costs]
    costs: Costs
    decoding_s: float
    size: Bytes
    capacity: float
    compared: list[Compared]

    @property
    def is_quiet(self) -> bool:
        """Whether hardly anything else ran."""
        return max(row.others for row in self.compared) <= MAX_OTHERS

    @property
    def agrees(self) -> bool:
        """Whether the simulation does what the stack did."""
        return not any(row.outside for row in self.compared)


def main(docs: Path) -> None:
    """Measure, simulate, compare, write."""
    with tempfile.TemporaryDirectory() as folder, bench(Path(folder)) as up:
        before = calibrate(up)
        capacity = saturated_rate(before)
        print(f"simulated capacity: {capacity:.1f} pictures/s", flush=True)
        measured, others = validate(up, capacity)
        calibrations = [before, calibrate(up)]
        _, answer = callers.post(up.address, up.body)
        size = count(len(up.body), len(answer))
    costs = middle(calibrations)
    compared = [compare(costs, capacity, load, measured[load], max(others[load])) for load in LOADS]
    machine = f"At commit {processes.head_commit()}, on {processor()}, Python {platform.python_version()}"
    run = Run(machine, calibrations, costs, decoding_s(), size, capacity, compared)
    figures = docs / "figures"
    (figures / "capacity.json").write_text(json.dumps(to_document(run), indent=1) + "\n")
    draw_latencies(compared, costs, capacity, figures / "capacity-latency.png")
    draw_utilisation(costs, figures / "capacity-utilisation.png")
    print(write(docs, run))
    if not run.is_quiet:
        print(f"something else used more than {MAX_OTHERS:.0%} of the processors: run it again with nothing else running")
    sys.exit(not (run.is_quiet and run.agrees))


def saturated_rate(costs: Costs) -> float:
    """Pictures a second that the simulated machine answers when more come. Not far more: refusing them costs time, too."""
    largest = costs.batches[-1]
    least_s = costs.caller_s + costs.http_s + costs.work_s + costs.rpc_s + largest.cpu_s / largest.pictures
    rate, seconds = ENOUGH * (os.cpu_count() or 1) / least_s, 60.0
    outcomes = simulate(costs, here(), poisson(rate, seconds, seed=1))
    # The first second fills the places.
    ended = (outcomes.due_s + outcomes.seconds)[outcomes.status == ANSWERED]
    return float(((ended > 1) & (ended <= seconds)).sum() / (seconds - 1))


def here() -> Deployment:
    """The deployment that is measured: all on this machine."""
    return released(gateway_cores=float(os.cpu_count() or 1))


def arrivals(load: float, number: int, capacity: float) -> list[float]:
    """Of a load in a round; the same in both worlds."""
    return poisson(load * capacity, SECONDS, seed=1000 * number + round(100 * load))


def validate(up: Bench, capacity: float) -> tuple[dict[float, list[Outcomes]], dict[float, list[float]]]:
    """Rounds of all loads at the real stack; and the share of the processors that others used."""
    measured: dict[float, list[Outcomes]] = {load: [] for load in LOADS}
    others: dict[float, list[float]] = {load: [] for load in LOADS}
    for number in range(ROUNDS):
        for load in LOADS:
            callers.offer(up.address, up.body, poisson(*WARM_UP, seed=1))
            watch = Others()
            measured[load].append(callers.offer(up.address, up.body, arrivals(load, number, capacity)))
            others[load].append(watch.share())
            print(f"{load:4} {summarize(measured[load][-1:], SECONDS)}, others {others[load][-1]:.1%}", flush=True)
    return measured, others


def compare(costs: Costs, capacity: float, load: float, measured: list[Outcomes], others: float) -> Compared:
    """Simulate the same arrivals."""
    simulated = [simulate(costs, here(), arrivals(load, number, capacity), seed=number) for number in range(len(measured))]
    low, high = interval(measured, SECONDS)
    offered = float(np.mean([len(one.status) for one in measured])) / SECONDS
    return Compared(load, offered, summarize(measured, SECONDS), summarize(simulated, SECONDS), low, high, others)


def to_document(run: Run) -> dict[str, object]:
    """What is kept beside the page, and read by plan.py."""
    return {
        "machine": run.machine,
        "picture": PICTURE_SIZE,
        "costs": asdict(run.costs),
        "calibrations": [asdict(one) for one in run.calibrations],
        "decoding_s": run.decoding_s,
        "bytes": asdict(run.size),
        "capacity": run.capacity,
        "compared": [asdict(row) for row in run.compared],
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
