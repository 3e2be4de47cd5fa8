"""What is broken, for how long, and what the gateway may refuse meanwhile."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np

from scripts.soak.disk import filled
from serving.channel import PREDICT_METHOD, open_channel, predict_batch_request
from serving.contract import ALLOWED_BATCH_SIZES, IMAGE_SHAPE, STABLE_LABEL
from serving.wire import prediction_pb2 as wire
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

LARGEST_BATCH = ALLOWED_BATCH_SIZES[-1]

FLOOD_CALLS = 16
"""Calls under way of somebody else's, each as large as the largest batch: more than batch threads and queue hold."""

REFUSED_S = 0.01
"""Until they try again."""

PASSES = 3
"""Of all sizes of a batch. One fills TensorFlow's pool in some runs; chance has a part in it."""

Mended = Callable[[], None]


@dataclass(frozen=True)
class Fault:
    """One thing that breaks.

    Attributes:
        name: for the table.
        may_refuse: slugs of the problems that its requests may get until it is over.
        must_refuse: one of them has to come, or it broke nothing.
        once: in the warm-up only, for memory is compared after it.
        inflict: does it for so many seconds, and says when it was mended; ends when everything runs again.
        shows_versions: every version has to answer in it.
    """

    name: str
    may_refuse: frozenset[str]
    must_refuse: bool
    once: bool
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
    with _other_client(stack) as classify:
        _flood(classify, seconds)
    mended()


def ask_every_batch_size(stack: "Stack", seconds: float, mended: Mended) -> None:
    """Nothing breaks: batches of each size, and floods of the largest.

    oneDNN keeps what it prepares for a size, and TensorFlow's pool grows to what two batches at once have ever needed. Left to
    chance, either comes late and looks like a leak.
    """
    with _other_client(stack) as classify:
        for _ in range(PASSES):
            _ask_sizes(classify)
            _flood(classify, seconds)
    mended()


def _ask_sizes(classify: Callable[[int], None]) -> None:
    """Each from two callers. What both have under way is too much for one batch, so that nothing is put together."""

    def ask(sizes: Sequence[int]) -> None:
        for pictures in sizes:
            while True:
                try:
                    classify(pictures)
                    break
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    time.sleep(REFUSED_S)

    rising = range(1, LARGEST_BATCH + 1)
    _in_threads(partial(ask, rising), partial(ask, rising[::-1]))


def _flood(classify: Callable[[int], None], seconds: float) -> None:
    until = time.monotonic() + seconds

    def flood() -> None:
        while time.monotonic() < until:
            try:
                classify(LARGEST_BATCH)
            except grpc.RpcError:
                time.sleep(REFUSED_S)

    _in_threads(*[flood] * FLOOD_CALLS)


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


@contextmanager
def _other_client(stack: "Stack") -> Iterator[Callable[[int], None]]:
    """Somebody else's channel to the model server: a function that has so many grey pictures classified in one call."""
    with open_channel(f"127.0.0.1:{stack.model_port}", None, (("grpc.use_local_subchannel_pool", 1),)) as channel:
        call: Any = channel.unary_unary(PREDICT_METHOD, wire.PredictRequest.SerializeToString, wire.PredictResponse.FromString)
        largest = np.zeros((LARGEST_BATCH, *IMAGE_SHAPE), np.uint8)
        yield lambda pictures: call(predict_batch_request(STABLE_LABEL, largest[:pictures]), timeout=60)


def _in_threads(*work: Callable[[], None]) -> None:
    """At once; what fails is raised here."""
    with ThreadPoolExecutor(len(work)) as threads:
        for done in [threads.submit(one) for one in work]:
            done.result()


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
    Fault("model server killed", _AWAY, must_refuse=True, once=True, inflict=kill_model_server),
    Fault("gateway worker killed", frozenset({_BUSY}), must_refuse=False, once=True, inflict=kill_worker),
    # While the new worker has counted little: each first count takes room.
    Fault(
        "disk filled",
        frozenset({"audit-unavailable", "cases-unavailable"}),
        must_refuse=True,
        once=False,
        inflict=fill_disk,
    ),
    Fault("model server frozen", _AWAY, must_refuse=True, once=False, inflict=freeze_model_server),
    Fault("model server slowed", _AWAY, must_refuse=True, once=False, inflict=slow_model_server),
    Fault("queue filled", _AWAY, must_refuse=True, once=False, inflict=fill_queue),
    Fault(
        "version published, promoted",
        frozenset({_BUSY}),
        must_refuse=False,
        once=False,
        inflict=change_version,
        shows_versions=True,
    ),
    Fault("Redis lost", frozenset({"idempotency-unavailable"}), must_refuse=True, once=False, inflict=lose_redis),
    # Last, just before memory is measured.
    Fault("every batch size", frozenset({_BUSY}), must_refuse=False, once=True, inflict=ask_every_batch_size),
)
