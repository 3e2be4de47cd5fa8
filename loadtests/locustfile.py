"""Locust's users, its course of load and the gate at its end, put together from the other modules.

`python -m locust --config loadtests/locust.conf --host http://127.0.0.1:8000 --shape soak`: docs/load-tests.md.
"""

import argparse
import datetime
import json
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

import gevent
from locust import LoadTestShape, User, constant, events, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests import corpus, page, report, server_side
from loadtests.arrivals import Arrivals
from loadtests.corpus import Corpus, CorpusError
from loadtests.exchange import TIMEOUT_S, AddressError
from loadtests.judge import Judge, Verdict
from loadtests.options import OptionError, add_to, look, read_mix
from loadtests.shapes import SHAPES, level
from loadtests.slo import Threshold, ThresholdError, thresholds
from loadtests.tally import Tally
from loadtests.visits import THINK_S, Site

PARTS: Final = 100
"""Users of Locust that make the peak of an open loop: each stands for a hundredth of its rate, on whichever worker it is."""

NOT_BEGUN: Final = 2
"""Exit code."""

_DRAIN_S: Final = TIMEOUT_S + 2 * THINK_S + 5
"""For what is under way when the load ends; then it is lost."""

_REPORTS_S: Final = 7.0
"""After the end until a master has surely heard of every worker's last visits: they report every three seconds."""


@dataclass
class Run:
    """What the parts of this process share; Locust makes users and shapes by itself, so it stands in the module.

    Attributes:
        corpus, key: what is sent, and with which key; on a master neither.
        mix: weights of the flows.
        thresholds: that must hold at the end.
        tally: of this process; on a master that of all workers.
        site: what is visited, once it has begun.
        parts: users of an open loop here.
        workers: that a master has heard of.
        is_complete: the shape came to its end.
    """

    corpus: Corpus | None = None
    key: str = ""
    mix: dict[str, int] = field(default_factory=dict)
    thresholds: list[Threshold] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    site: Site | None = None
    parts: int = 0
    workers: set[str] = field(default_factory=set)
    began_s: float = 0.0
    is_complete: bool = False
    chance: random.Random = field(default_factory=random.Random)


RUN = Run()


class Part(User):
    """A hundredth of an open loop's peak: it does nothing but count."""

    wait_time = constant(3600)

    def on_start(self) -> None:
        """One more."""
        RUN.parts += 1

    def on_stop(self) -> None:
        """One less."""
        RUN.parts -= 1

    @task
    def stand(self) -> None:
        """The arrivals do the work."""


class Visitor(User):
    """Of a closed loop: visits, thinks, visits again."""

    abstract = True
    flow = ""

    def wait_time(self) -> float:
        """Of some length, so that they do not march in step."""
        return RUN.chance.expovariate(1 / THINK_S)

    @task
    def visit(self) -> None:
        """One visit."""
        if RUN.site:
            RUN.site.visit(self.flow, time.perf_counter(), RUN.chance)


class PortalVisitor(Visitor):
    """Opens the page and sends its form."""

    flow = "portal"


class ApiClient(Visitor):
    """Sends one picture."""

    flow = "api"


class BatchClient(Visitor):
    """Sends up to sixteen."""

    flow = "batch"


class SlowUploader(Visitor):
    """Sends one on a bad line."""

    flow = "slow"


class HostileClient(Visitor):
    """Sends what must be refused."""

    flow = "hostile"


VISITORS: Final[tuple[type[Visitor], ...]] = (PortalVisitor, ApiClient, BatchClient, SlowUploader, HostileClient)


class Course(LoadTestShape):
    """The chosen shape; at its end it waits until what is under way is answered."""

    def tick(self) -> tuple[int, float, list[type[User]]] | None:
        """How many users there are to be now."""
        options = _options(self.runner.environment) if self.runner else None
        if options is None:
            return None
        elapsed_s, is_open = self.get_run_time(), options.loop == "open"
        classes: list[type[User]] = [Part] if is_open else [one for one in VISITORS if RUN.mix[one.flow]]
        if elapsed_s < options.duration:
            most = PARTS if is_open else options.peak
            return round(most * level(SHAPES[options.shape], elapsed_s / options.duration)), 100, classes
        settle_s = _REPORTS_S if isinstance(self.runner, MasterRunner) else 1.0
        is_over = elapsed_s > options.duration + settle_s and RUN.tally.in_flight == 0
        if is_over or elapsed_s > options.duration + _DRAIN_S:
            RUN.is_complete = True
            return None
        return 0, 100, classes


@events.init_command_line_parser.add_listener
def add_options(parser: argparse.ArgumentParser) -> None:
    """Beside Locust's own; each also as an environment variable."""
    add_to(parser)


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """Read everything that can be wrong, before anything is sent."""
    options = _options(environment)
    runner = environment.runner
    try:
        if not isinstance(runner, WorkerRunner):
            RUN.thresholds = thresholds(SHAPES[options.shape].promise, list(filter(None, options.thresholds.split(","))))
            RUN.mix = read_mix(options.mix)
            if options.duration <= 0 or options.peak <= 0:
                raise OptionError("duration and peak must be above zero")
        RUN.key = Path(options.key_file).read_text().strip() if options.key_file else ""
        if not isinstance(runner, MasterRunner):
            RUN.corpus = corpus.read(Path(options.corpus))
        if not isinstance(runner, WorkerRunner):
            look(environment.host or "", RUN.key)
    except (CorpusError, ThresholdError, OptionError, AddressError, OSError) as error:
        _give_up(str(error))
    if isinstance(runner, MasterRunner):
        environment.events.worker_report.add_listener(_hear)
    elif isinstance(runner, WorkerRunner):
        environment.events.report_to_master.add_listener(_tell)


@events.test_start.add_listener
def begin(environment: Environment, **_: Any) -> None:
    """Load is about to come: from here on it counts."""
    options = _options(environment)
    RUN.tally = Tally()
    RUN.began_s = time.time()
    RUN.is_complete = False
    if RUN.corpus is None:
        return
    RUN.mix = read_mix(options.mix)
    site = RUN.site = Site(
        (environment.host or "").rstrip("/"),
        RUN.key,
        RUN.corpus,
        Judge(options.model_version or None),
        RUN.tally,
        _observe(environment),
    )
    if options.loop == "open":

        def visit(due_s: float) -> None:
            (flow,) = RUN.chance.choices(list(RUN.mix), list(RUN.mix.values()))
            site.visit(flow, due_s, RUN.chance)

        def rate() -> float:
            # To the moment: Locust looks at the shape once a second.
            return RUN.parts * options.peak / PARTS if time.time() - RUN.began_s < options.duration else 0.0

        gevent.spawn(Arrivals(rate, visit, site.drop, options.spacing, RUN.chance).run)


@events.quitting.add_listener
def conclude(environment: Environment, **_: Any) -> None:
    """Write what came of it, and set the exit code."""
    if isinstance(environment.runner, WorkerRunner) or not RUN.began_s:
        return
    options = _options(environment)
    began = datetime.datetime.fromtimestamp(RUN.began_s, datetime.UTC)
    # At the end a master's workers have gone already.
    workers = len(RUN.workers) if isinstance(environment.runner, MasterRunner) else 1
    run = {
        "host": environment.host,
        "began": RUN.began_s,
        "began_utc": began.isoformat(timespec="seconds"),
        "workers": workers,
        "complete": RUN.is_complete,
        "mix": RUN.mix,
        "unit": "visits a second" if options.loop == "open" else "users",
        "duration_s": options.duration,
        **{name: getattr(options, name) for name in ("shape", "loop", "spacing", "peak")},
    }
    server, problem = None, ""
    if options.prometheus:
        time.sleep(options.prometheus_settle)
        try:
            server = server_side.fetch(options.prometheus, RUN.began_s)
        except server_side.PrometheusError as error:
            problem = str(error)
    told = report.document(run, RUN.tally, RUN.thresholds, server, problem)
    folder = Path(options.reports)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(told, indent=1) + "\n")
    (folder / "report.html").write_text(page.render(told))
    sys.stdout.write("\n".join(report.lines(told)) + f"\nreports: {folder}/report.html, {folder}/report.json\n")
    sys.stdout.flush()
    environment.process_exit_code = 0 if told["holds"] else 1


def _options(environment: Environment) -> Any:
    return environment.parsed_options


def _hear(client_id: str, data: dict[str, Any]) -> None:
    """What a worker has counted since it last told."""
    RUN.workers.add(client_id)
    if "dermserve" in data:
        RUN.tally.add(data["dermserve"])


def _tell(client_id: str, data: dict[str, Any]) -> None:  # noqa: ARG001  (Locust names it)
    """What was counted here since the last time."""
    if RUN.site:
        data["dermserve"] = RUN.site.tally.to_document()
        RUN.site.tally = Tally()


class NotRight(Exception):
    """An answer that Locust shall show among its failures."""


def _observe(environment: Environment) -> Any:
    def observe(step: str, took_s: float, size: int, verdict: Verdict) -> None:
        is_right = verdict.outcome in ("accepted", "rejected")
        environment.events.request.fire(
            request_type="HTTP",
            name=step,
            response_time=1000 * took_s,
            response_length=size,
            exception=None if is_right else NotRight(f"{verdict.outcome}: {verdict.what}"),
            context={},
        )

    return observe


def _give_up(text: str) -> NoReturn:
    sys.stderr.write(f"error: {text}\n")
    sys.exit(NOT_BEGUN)
