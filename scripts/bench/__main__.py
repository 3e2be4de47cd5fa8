"""`python -m scripts.bench`: Dermserve beside other ways to serve the same model; writes a part of docs/benchmarks.md.

Rounds of visits: each contestant is alone on the machine while it is measured. An interrupted run is taken up where it was;
with --only some contestants are visited, and the page is written once all have been. Run it with nothing else running. Ends
with 1 when something else ran, and when Dermserve itself has a fault.
"""

import argparse
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from scripts.bench.contestants import CONTESTANTS
from scripts.bench.prepare import prepare, questions, released
from scripts.bench.report import NAMES, Run, publish
from scripts.bench.visits import Book, order, visit
from scripts.callers import processor
from tests import processes

CALLERS = (1, 4, 16, 64)
ENVIRONMENTS = ("bentoml", "ray", "engines")
ROUNDS = 6
SECONDS = 3.0


def main(arguments: argparse.Namespace) -> int:
    """Visit, and write."""
    state: Path = arguments.state
    if arguments.fresh:
        shutil.rmtree(state, ignore_errors=True)
    machine = f"At commit {processes.head_commit()}, on {processor()}, Python {platform.python_version()}"
    run = Run(machine, arguments.rounds, tuple(arguments.callers or CALLERS), arguments.seconds)
    book = Book(state / "visits.json", asdict(run))
    if arguments.retry:
        book.forget_faults()
    wanted = arguments.only or NAMES
    chosen = [contestant for contestant in CONTESTANTS if contestant.name in wanted]
    installed = {role: str(processes.ROOT / ".venvs" / role / "bin" / "python") for role in ENVIRONMENTS}
    pythons = installed | dict(one.split("=", 1) for one in arguments.python)
    with tempfile.TemporaryDirectory() as name:
        version, folder = released(), Path(name)
        print("the right answers, and the model in other forms", flush=True)
        asked, prepared = questions(version, folder), prepare(version, chosen, pythons, folder)
        by_name = {contestant.name: contestant for contestant in chosen}
        for number in range(arguments.rounds):
            for contestant in order(NAMES, number):
                if contestant in by_name and not book.has(contestant, number):
                    visited = visit(by_name[contestant], prepared, asked, number, run.callers, run.seconds)
                    told = visited.fault or f"{visited.start_s:.1f} s to the first answer, {visited.memory_mb:.0f} MB"
                    print(f"round {number + 1} {contestant:32} {told}", flush=True)
                    book.add(visited)
    numbers = range(arguments.rounds)
    missing = [contestant for contestant in NAMES if not all(book.has(contestant, number) for number in numbers)]
    if missing:
        print(f"not written, not yet visited: {', '.join(missing)}")
        return 0
    is_sound = publish(arguments.docs, book.visits, run)
    if book.failed:
        print(f"{', '.join(book.failed)} failed; --retry visits them again")
    else:
        book.close()
    return int(not is_sound)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench.sh")
    parser.add_argument("--docs", type=Path, default=processes.ROOT / "docs", help="folder of the page")
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME", help=f"one of: {'; '.join(NAMES)}")
    parser.add_argument("--python", action="append", default=[], metavar="ROLE=PYTHON", help="interpreter of an environment")
    parser.add_argument("--state", type=Path, default=processes.ROOT / ".run" / "bench", help="where visits are kept")
    parser.add_argument("--fresh", action="store_true", help="forget what was visited")
    parser.add_argument("--retry", action="store_true", help="forget who was at fault")
    parser.add_argument("--callers", action="append", type=int, help=f"at a time; by default each of {CALLERS}")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement")
    return parser.parse_args(argv)


if __name__ == "__main__":
    # What was started goes down with us, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main(parse(sys.argv[1:])))
