"""What is broken, for how long, and what the gateway may refuse meanwhile."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from scripts.soak.batches import flood
from scripts.soak.disk import filled
from tests import processes

if TYPE_CHECKING:
    # It loads TensorFlow, and the tests of this need none.
    from scripts.soak.stack import Stack

SUPERVISED_S = 2.0
"""Until whoever watches a process starts it again."""

FROZEN_S = 10.0
"""At least: longer than a call's timeout, or nobody would notice."""

STOPPED_S, RUNNING_S = 0.08, 0.02
"""In turn: a model server with a fifth of the processor."""

Mended = Callable[[], None]


@dataclass(frozen=True)
class Fault:
    """One thing that breaks.

    Attributes:
        name: for the table.
        may_refuse: slugs of the problems that its requests may get until it is over.
        must_refuse: one of them has to come, or it broke nothing.
        replaces: a process whose memory would be compared with another's.
        inflict: does it for so many seconds, and says when it was mended; ends when everything runs again.
        shows_versions: every version has to answer in it.
    """

    name: str
    may_refuse: frozenset[str]
    must_refuse: bool
    replaces: bool
    inflict: Callable[["Stack", float, Mended], None]
    shows_versions: bool = False


def kill_model_server(stack: "Stack", _: float, mended: Mended) -> None:
    """SIGKILL; started again on the same port, as a supervisor does."""
    _restart(stack.model_server, SUPERVISED_S, mended, partial(stack.start_model_server, stack.model_port))


def kill_worker(stack: "Stack", _: float, mended: Mended) -> None:
    """SIGKILL; gunicorn starts another one by itself."""
    killed = stack.kill_worker()
    mended()
    processes.wait_until(lambda: killed not in (pids := [worker.pid for worker in stack.workers()]) and len(pids) > 1)


def freeze_model_server(stack: "Stack", seconds: float, mended: Mended) -> None:
    """It is there, takes connections and says nothing."""
    with ExitStack() as thawed:
        _stop(stack, thawed)
        time.sleep(max(seconds, FROZEN_S))
    mended()


def slow_model_server(stack: "Stack", seconds: float, mended: Mended) -> None:
    """It gets a part of the time that it needs."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with ExitStack() as thawed:
            _stop(stack, thawed)
            time.sleep(STOPPED_S)
        time.sleep(RUNNING_S)
    mended()


def fill_queue(stack: "Stack", seconds: float, mended: Mended) -> None:
    """Somebody else sends it large batches without a pause."""
    flood(stack.model_port, seconds)
    mended()


def change_version(stack: "Stack", _: float, mended: Mended) -> None:
    """The next version is checked, published, loaded and promoted; then the way back."""
    stack.publish()
    stack.roll_out("promote", str(stack.versions[1]))
    stack.roll_out("rollback")
    mended()
    stack.withdraw()


def fill_disk(stack: "Stack", seconds: float, mended: Mended) -> None:
    """Audit record, cases, metrics and log share one, and it is full."""
    with filled(stack.disk):
        time.sleep(seconds)
    mended()


def lose_redis(stack: "Stack", seconds: float, mended: Mended) -> None:
    """SIGKILL; it comes back empty."""
    _restart(stack.redis, seconds, mended, partial(stack.start_redis, stack.redis_port))


def _restart(program: processes.Program, down_s: float, mended: Mended, start: Callable[[], None]) -> None:
    program.process.kill()
    program.process.wait()
    time.sleep(down_s)
    mended()
    start()


def _stop(stack: "Stack", thawed: ExitStack) -> None:
    process = stack.model_server.process
    thawed.callback(os.kill, process.pid, signal.SIGCONT)
    process.send_signal(signal.SIGSTOP)


_BUSY = "overloaded"
_AWAY = frozenset({"model-unavailable", "model-timeout", _BUSY})

FAULTS = (
    Fault("model server killed", _AWAY, must_refuse=True, replaces=True, inflict=kill_model_server),
    Fault("gateway worker killed", frozenset({_BUSY}), must_refuse=False, replaces=True, inflict=kill_worker),
    # While the new worker has counted little: each first count takes room.
    Fault(
        "disk filled",
        frozenset({"audit-unavailable", "cases-unavailable"}),
        must_refuse=True,
        replaces=False,
        inflict=fill_disk,
    ),
    Fault("model server frozen", _AWAY, must_refuse=True, replaces=False, inflict=freeze_model_server),
    Fault("model server slowed", _AWAY, must_refuse=True, replaces=False, inflict=slow_model_server),
    Fault("queue filled", _AWAY, must_refuse=True, replaces=False, inflict=fill_queue),
    Fault(
        "version published, promoted",
        frozenset({_BUSY}),
        must_refuse=False,
        replaces=False,
        inflict=change_version,
        shows_versions=True,
    ),
    Fault("Redis lost", frozenset({"idempotency-unavailable"}), must_refuse=True, replaces=False, inflict=lose_redis),
)
