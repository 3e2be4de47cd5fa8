"""Callers that call without a pause, and what they measure. Used by the benchmarks."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import requests

from serving.channel import PREDICT_METHOD, open_channel, predict_request
from serving.contract import STABLE_LABEL
from serving.wire import prediction_pb2 as wire


@dataclass(frozen=True)
class Load:
    """What a number of callers saw.

    Attributes:
        rate: calls a second.
        p50_ms, p99_ms: what half and 99 % of the calls take at most.
        cpu_ms: processor time of a call, of each process that was watched.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_ms: tuple[float, ...]


def grpc_caller(stack: ExitStack, port: int, image: np.ndarray) -> Callable[[], object]:
    """Sends one picture to the model server, as the gateway does."""
    channel = stack.enter_context(open_channel(f"127.0.0.1:{port}", None, (("grpc.use_local_subchannel_pool", 1),)))
    call = channel.unary_unary(PREDICT_METHOD, wire.PredictRequest.SerializeToString, wire.PredictResponse.FromString)
    return partial(call, predict_request(STABLE_LABEL, image), timeout=60)


def http_caller(stack: ExitStack, address: str, picture: bytes) -> Callable[[], object]:
    """Posts one picture to `address`."""
    session = stack.enter_context(requests.Session())

    def post() -> object:
        answer = session.post(address, files={"file": ("x.jpg", picture)}, timeout=60)
        answer.raise_for_status()
        return answer

    return post


def drive(callers: Sequence[Callable[[], object]], seconds: float, watched: Sequence[int | None] = ()) -> Load:
    """Let every caller call without a pause, and count what is sent within the time; what comes before warms up.

    Args:
        callers: each in a thread of its own.
        seconds: for how long.
        watched: processes whose processor time is taken, children included; None takes none.
    """
    _repeat(callers, time.perf_counter() + seconds / 5)
    before = [cpu_s(pid) for pid in watched]
    started = time.perf_counter()
    taken = _repeat(callers, started + seconds)
    elapsed = time.perf_counter() - started
    milliseconds = np.array(taken) * 1000
    return Load(
        rate=len(taken) / elapsed,
        p50_ms=float(np.median(milliseconds)),
        p99_ms=float(np.quantile(milliseconds, 0.99)),
        cpu_ms=tuple(1000 * (cpu_s(pid) - at_first) / len(taken) for pid, at_first in zip(watched, before, strict=True)),
    )


def processor() -> str:
    """What the machine computes with, for the pages that a measurement writes."""
    text = Path("/proc/cpuinfo").read_text()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    name = f"{names[0] if names else 'unknown processor'}{', AVX512_BF16' if 'avx512_bf16' in text else ''}"
    return f"{os.cpu_count()} cores, {name}"


def cpu_s(pid: int | None) -> float:
    """Processor time of a process and its children so far."""
    if pid is None:
        return 0.0
    process = psutil.Process(pid)
    # The servers that the callers call are this process's children, too.
    family = [process] if pid == os.getpid() else [process, *process.children(recursive=True)]
    return sum(sum(member.cpu_times()[:2]) for member in family)


def _repeat(callers: Sequence[Callable[[], object]], until: float) -> list[float]:
    seconds: list[float] = []
    failures: list[BaseException] = []

    def work(call: Callable[[], object]) -> None:
        try:
            while (sent := time.perf_counter()) < until:
                call()
                seconds.append(time.perf_counter() - sent)
        except Exception as error:  # noqa: BLE001  (the edge of a thread)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(call,)) for call in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return seconds
