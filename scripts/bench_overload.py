"""`bench_overload.py DOCS`: pictures answered in time at up to five times the capacity; writes DOCS/overload.md.

Arrivals come at a constant rate, however slowly they are answered (an open loop): callers who wait for an answer before they
send the next picture would slow down with the gateway and hide what overload does. The model server is one of known pace, so
that the figures are those of the gateway's behaviour and not of this machine. Ends with 1 when what is promised does not hold.
"""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import numpy as np
import requests

from gateway.settings import Settings
from tests import processes
from tests.pictures import encode, textured

SLOTS, SECONDS = 4, 0.2
LOADS = (0.5, 1.0, 2.0, 5.0)
DURATION_S = 15.0
CALLERS = 2_000
OBJECTIVE_S = 2.0
"""Of an answer; a picture that is answered later does not count as answered in time."""

MIN_GOODPUT_SHARE = 0.85
WITH, WITHOUT = "with admission control", "without"
# Twice the slots at work, for connections are dealt out to the processes unevenly; as many waiting as at work, as by default.
BOUNDED = {"GATEWAY_WORKERS": "2", "GATEWAY_THREADS": f"{SLOTS}", "GATEWAY_MAX_WAITING": f"{SLOTS}"}
# As many at work as come: what a thread pool without bounds does.
SETTINGS = {WITH: BOUNDED, WITHOUT: BOUNDED | {"GATEWAY_THREADS": "1000"}}

_DEFAULTS = Settings()
NUMBERS = f"""
By Little's law, what is present is the rate times the time that each one stays. A process that works on threads pictures,
each for S seconds, answers threads / S a second; whoever waits behind max_waiting others waits for max_waiting x S /
threads. With as many waiting as working (the default, {_DEFAULTS.max_waiting} and {_DEFAULTS.threads}) that is one S: the
last one let in takes twice as long as one that finds the gateway idle. More would not be answered sooner, only later. The
wait has an end all the same: half of what the request budget leaves beside the calls, and never more than half the
objective.
"""


@dataclass(frozen=True)
class Answer:
    """One picture: seconds from when it was due until its answer, and the status; 0 if the connection gave none."""

    seconds: float
    status: int
    has_retry_after: bool


@dataclass(frozen=True)
class Measured:
    """One load.

    Attributes:
        load: times the capacity.
        offered, goodput: pictures a second that came, and that were answered in time.
        refused: share with 503 and Retry-After.
        failed: share with another error, or answered too late.
        lost: requests without an answer, or with a 503 that does not say when to come again.
        p50_ms, p99_ms: of the accepted ones.
        refused_p99_ms: of a refusal.
    """

    load: float
    offered: float
    goodput: float
    refused: float
    failed: float
    lost: int
    p50_ms: float
    p99_ms: float
    refused_p99_ms: float


def main(docs: Path) -> None:
    """Measure, print and write."""
    picture = encode(textured((600, 450)), "JPEG", quality=90)
    tables: dict[str, list[Measured]] = {}
    capacity = 0.0
    for name, settings in SETTINGS.items():
        with stack(settings) as address:
            capacity = capacity or measure_capacity(address, picture)
        rows = tables[name] = []
        for load in LOADS:
            # Afresh each time: what the one load has left in the queues shall not slow the next.
            with stack(settings) as address:
                rows.append(summarize(load, capacity, offer(address, picture, load * capacity)))
                print(f"{name:24}{rows[-1]}", flush=True)
    bounded = tables[WITH]
    share = bounded[-1].goodput / max(row.goodput for row in bounded)
    slowest_ms = max(row.p99_ms for row in bounded)
    lost = sum(row.lost for row in bounded)
    holds = {
        f"at {LOADS[-1]:g} times the capacity {share:.0%} of the best goodput remains, promised: {MIN_GOODPUT_SHARE:.0%}": (
            share >= MIN_GOODPUT_SHARE
        ),
        f"at every load 99 % of accepted pictures are answered within {slowest_ms:.0f} ms, objective: {OBJECTIVE_S:g} s": (
            slowest_ms <= 1000 * OBJECTIVE_S
        ),
        f"requests lost: {lost}, promised: 0": not lost,
    }
    write(docs, capacity, tables, holds)
    sys.exit(not all(holds.values()))


@contextmanager
def stack(settings: dict[str, str]) -> Iterator[str]:
    """A gateway before a model server of known pace. Gives its address."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        _, port = opened.enter_context(processes.paced_server(folder, SLOTS, SECONDS))
        _, address = opened.enter_context(processes.gateway(port, folder, **settings))
        yield address


def measure_capacity(address: str, picture: bytes) -> float:
    """Pictures a second that a few callers get answered who never pause."""
    until = time.perf_counter() + DURATION_S / 2

    def call(_: int) -> int:
        answered = 0
        while time.perf_counter() < until:
            answered += processes.post_picture(address, picture).ok
        return answered

    started = time.perf_counter()
    # Half as many again as the slots, so that none is ever idle.
    with ThreadPoolExecutor(SLOTS * 3 // 2) as pool:
        answered = sum(pool.map(call, range(SLOTS * 3 // 2)))
    return answered / (time.perf_counter() - started)


def offer(address: str, picture: bytes, rate: float) -> list[Answer]:
    """Send a picture whenever one is due."""
    started = time.perf_counter()

    def send(due: float) -> Answer:
        try:
            response = processes.post_picture(address, picture)
        except requests.RequestException:
            return Answer(time.perf_counter() - due, 0, has_retry_after=False)
        return Answer(time.perf_counter() - due, response.status_code, "Retry-After" in response.headers)

    with ThreadPoolExecutor(CALLERS) as pool:
        pending = []
        for number in range(int(rate * DURATION_S)):
            due = started + number / rate
            time.sleep(max(due - time.perf_counter(), 0.0))
            pending.append(pool.submit(send, due))
        return [answer.result() for answer in pending]


def summarize(load: float, capacity: float, answers: list[Answer]) -> Measured:
    """Count."""
    accepted = np.array([answer.seconds for answer in answers if answer.status == HTTPStatus.OK]) * 1000
    refusals = [answer for answer in answers if answer.status == HTTPStatus.SERVICE_UNAVAILABLE]
    refused = np.array([answer.seconds for answer in refusals if answer.has_retry_after]) * 1000
    in_time = int((accepted <= 1000 * OBJECTIVE_S).sum())
    lost = sum(answer.status == 0 for answer in answers) + len(refusals) - len(refused)
    return Measured(
        load,
        offered=load * capacity,
        goodput=in_time / DURATION_S,
        refused=len(refused) / len(answers),
        failed=(len(answers) - in_time - len(refused) - lost) / len(answers),
        lost=lost,
        p50_ms=_quantile(accepted, 0.5),
        p99_ms=_quantile(accepted, 0.99),
        refused_p99_ms=_quantile(refused, 0.99),
    )


def _quantile(values: np.ndarray, share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else float("nan")


def write(docs: Path, capacity: float, tables: dict[str, list[Measured]], holds: dict[str, bool]) -> None:
    """The page."""
    commit = processes.head_commit()
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    lines = [
        "# Overload",
        "",
        "Printed by `make bench-overload`, which writes this page. Nothing is to be edited here.",
        "",
        f"At commit {commit}, on {machine}; callers, gateway and model server share them. With admission control:",
        "",
        *(f"- {'Holds' if is_so else '**Does not hold**'}: {text}." for text, is_so in holds.items()),
        "",
        "## What was measured",
        "",
        f"A model server that answers {SLOTS} pictures at a time, each after {SECONDS:g} s, whatever this machine does:",
        f"that is {SLOTS / SECONDS:g} a second. Through gunicorn and gateway (2 processes) {capacity:.1f} were measured:",
        f"the capacity. Then pictures (JPEG, 600 x 450) arrive at a constant rate for {DURATION_S:g} s, each on a",
        "connection of its own, whether or not the ones before are answered. Goodput: answered with 200 within the",
        f"objective of {OBJECTIVE_S:g} s. Times count from when a picture was due. Failed: another error than a 503 with",
        "Retry-After, or an answer after the objective. Lost: no answer.",
    ]
    for name, rows in tables.items():
        settings = ", ".join(f"{key}={value}" for key, value in SETTINGS[name].items())
        lines += [
            "",
            f"## {name.capitalize()}",
            "",
            f"`{settings}`",
            "",
            "| load | offered/s | goodput/s | refused | failed | lost | p50 ms | p99 ms | p99 ms of a refusal |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            cells = (
                f"{row.load:g}x",
                f"{row.offered:.1f}",
                f"{row.goodput:.1f}",
                f"{row.refused:.0%}",
                f"{row.failed:.0%}",
                row.lost,
            )
            times = ("-" if np.isnan(value) else f"{value:.0f}" for value in (row.p50_ms, row.p99_ms, row.refused_p99_ms))
            lines.append(f"| {' | '.join(map(str, (*cells, *times)))} |")
    lines += ["", "## The numbers of the settings", NUMBERS]
    (docs / "overload.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
