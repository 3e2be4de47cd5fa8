"""What one picture costs on this machine: short measurements, one request or one batch at a time.

None of them waits for another: what a loaded stack does is for the simulation to say. By how much everything is slower in
company, for caches, memory and the interpreter's lock are shared, is measured apart, with some callers in a closed loop.
"""

import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway.images import decode, model_input
from gateway.settings import Settings
from scripts.bench_gateway import camera_picture
from scripts.callers import cpu_s
from scripts.capacity import callers
from scripts.capacity.settings import released
from scripts.capacity.simulation import Batch, Costs, closed_rate
from serving.channel import PREDICT_METHOD, open_channel, predict_batch_request
from serving.contract import IMAGE_SHAPE, STABLE_LABEL
from serving.models_config import read_models_config
from serving.wire import prediction_pb2 as wire
from tests import processes

BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
SECONDS = 1.6
"""Of each measurement; processor time is counted in hundredths of a second."""

COMPANY = 8
"""Callers in a closed loop: as many as keep both cores busy with batches of a middling size."""

COMPANY_SECONDS = 12.0
MIN_CALLS = 6
PICTURE_SIZE = (1024, 768)
BATCHING = processes.ROOT / "serving" / "config" / "batching.config"
_UNREADABLE = b"not a picture"


@dataclass(frozen=True)
class Timed:
    """One caller that calls without a pause.

    Attributes:
        wall_s: of every call.
        cpu_s: processor time of a call, of each process that was watched.
    """

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """Of the calls."""
        return statistics.median(self.wall_s)

    @property
    def mean_s(self) -> float:
        """Of the calls."""
        return statistics.mean(self.wall_s)


@dataclass(frozen=True)
class Bench:
    """What is up, idle, for the measurements.

    Attributes:
        body: of a request with the picture.
        gateway, address: the stack that is validated: defaults, before the released model.
        model_server: its model server, with the batching that is released.
        alone, alone_port: the released model again, with a server that waits for no company.
        tiny, tiny_port: a model server whose model computes next to nothing, also without waiting.
        full, full_address: a gateway with one place.
    """

    body: bytes
    gateway: processes.Program
    address: str
    model_server: processes.Program
    alone: processes.Program
    alone_port: int
    tiny: processes.Program
    tiny_port: int
    full: processes.Program
    full_address: str


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """Start everything. What is not called costs nothing."""
    base = processes.ROOT / "serving" / "models" / "lesion"
    version = read_models_config(processes.ROOT / "serving" / "config" / "models.config").labels[STABLE_LABEL]
    no_waiting = folder / "no-waiting.config"
    no_waiting.write_text(
        re.sub(r"batch_timeout_micros \{ value: \d+ \}", "batch_timeout_micros { value: 0 }", BATCHING.read_text())
    )
    places = [folder / name for name in ("released", "alone", "tiny")]
    for place in places:
        place.mkdir()
    with ExitStack() as stack:
        tiny = [sys.executable, "-m", "tests.tiny_model", str(folder / "tiny-model"), "1"]
        written = stack.enter_context(processes.running(tiny, folder / "tiny-model.log"))
        labels = f"{STABLE_LABEL}:{version}"
        model_server, port, _ = stack.enter_context(processes.model_server(base, places[0], labels=labels))
        alone, alone_port, _ = stack.enter_context(
            processes.model_server(base, places[1], labels=labels, batching=str(no_waiting))
        )
        if written.process.wait() != 0:
            raise RuntimeError(written.output)
        tiny_server, tiny_port, _ = stack.enter_context(
            processes.model_server(folder / "tiny-model", places[2], batching=str(no_waiting))
        )
        gateway, address = stack.enter_context(processes.gateway(port, places[0]))
        one_place = {"GATEWAY_WORKERS": "1", "GATEWAY_THREADS": "1", "GATEWAY_MAX_WAITING": "0", "GATEWAY_GOLDEN_PERIOD_S": "0"}
        full, full_address = stack.enter_context(processes.gateway(tiny_port, folder, **one_place))
        body = callers.form(camera_picture(PICTURE_SIZE))
        yield Bench(
            body=body,
            gateway=gateway,
            address=address,
            model_server=model_server,
            alone=alone,
            alone_port=alone_port,
            tiny=tiny_server,
            tiny_port=tiny_port,
            full=full,
            full_address=full_address,
        )


def calibrate(on: Bench) -> Costs:
    """Measure each part by itself."""
    picture = callers.form(camera_picture(PICTURE_SIZE))
    garbage = callers.form(_UNREADABLE * (len(picture) // len(_UNREADABLE)))
    watched = [None, on.gateway.process.pid]
    whole = timed(partial(_post, on.address, picture, 200), watched)
    unread = timed(partial(_post, on.address, garbage, 415), watched)
    with callers.held_place(on.full_address, picture):
        # Not by asking: what asks would take the place itself.
        processes.wait_until(lambda: processes.read_metrics(on.full_address).get(("pictures", "present")) == 1)
        refused = timed(partial(_post, on.full_address, picture, 503), [None, on.full.process.pid])
    pixels = np.random.default_rng(1).integers(0, 256, (max(BATCH_SIZES), *IMAGE_SHAPE), dtype=np.uint8)
    rpc_s = _call(on.tiny_port, pixels[:1], on.tiny).cpu_s[0]
    alone = {size: _call(on.alone_port, pixels[:size], on.alone) for size in BATCH_SIZES}
    # Means: the factors' mean is 1 then, and no processor time is lost or invented by drawing them.
    batches = tuple(Batch(size, one.mean_s - rpc_s, one.cpu_s[0] - rpc_s) for size, one in alone.items())
    caller_s, gateway_s = whole.cpu_s
    http_s = min(unread.cpu_s[1], gateway_s)
    known_s = caller_s + gateway_s + rpc_s + released().batch_timeout_s + batches[0].wall_s
    alone_costs = Costs(
        caller_s=caller_s,
        http_s=http_s,
        work_s=gateway_s - http_s,
        rpc_s=rpc_s,
        idle_s=max(whole.median_s - known_s, 0.0),
        refusal_s=refused.cpu_s[1],
        batches=batches,
        scatter=_quantiles([seconds / one.mean_s for one in alone.values() for seconds in one.wall_s]),
    )
    return in_company(alone_costs, _measure_company(on, alone_costs))


def in_company(costs: Costs, company: float) -> Costs:
    """The same, with everything that needs a processor taking so many times as long."""
    return replace(
        costs,
        caller_s=costs.caller_s * company,
        http_s=costs.http_s * company,
        work_s=costs.work_s * company,
        rpc_s=costs.rpc_s * company,
        refusal_s=costs.refusal_s * company,
        batches=tuple(Batch(one.pictures, one.wall_s * company, one.cpu_s * company) for one in costs.batches),
        company=company,
    )


def _measure_company(on: Bench, costs: Costs) -> float:
    """How much slower some callers are served than they would be if everybody got all that a shared processor has to give."""

    def call_until(ends: float) -> int:
        sent = 0
        while time.perf_counter() < ends:
            _post(on.address, on.body, 200)
            sent += 1
        return sent

    with ThreadPoolExecutor(COMPANY) as pool:
        # The first batches of each size are slow.
        list(pool.map(call_until, [time.perf_counter() + 2.0] * COMPANY))
        started = time.perf_counter()
        sent = sum(pool.map(call_until, [started + COMPANY_SECONDS] * COMPANY))
        rate = sent / (time.perf_counter() - started)
    everything_here = released(gateway_cores=float(os.cpu_count() or 1))
    return closed_rate(costs, everything_here, COMPANY, COMPANY_SECONDS) / rate


def decoding_s() -> float:
    """Median of decoding and resizing one picture in this thread, for the table."""
    data = camera_picture(PICTURE_SIZE)
    return timed(lambda: model_input(decode(data, Settings.max_picture_pixels)), []).median_s


def middle(rounds: list[Costs]) -> Costs:
    """Medians of several calibrations, field by field; the scatter of all of them together."""
    names = ("caller_s", "http_s", "work_s", "rpc_s", "idle_s", "refusal_s", "company")
    sizes = zip(*(one.batches for one in rounds), strict=True)
    return Costs(
        **{name: statistics.median(getattr(one, name) for one in rounds) for name in names},
        batches=tuple(
            Batch(
                same[0].pictures,
                statistics.median(batch.wall_s for batch in same),
                statistics.median(batch.cpu_s for batch in same),
            )
            for same in sizes
        ),
        scatter=_quantiles([factor for one in rounds for factor in one.scatter]),
    )


def timed(call: Callable[[], object], watched: list[int | None]) -> Timed:
    """Call for a while; a few calls before warm up. None among the watched is this process without its children."""
    for _ in range(MIN_CALLS // 2):
        call()
    before = [_cpu_s(pid) for pid in watched]
    started = time.perf_counter()
    wall_s: list[float] = []
    while (sent := time.perf_counter()) < started + SECONDS or len(wall_s) < MIN_CALLS:
        call()
        wall_s.append(time.perf_counter() - sent)
    used = tuple((_cpu_s(pid) - at_first) / len(wall_s) for pid, at_first in zip(watched, before, strict=True))
    return Timed(tuple(wall_s), used)


def _call(port: int, pixels: npt.NDArray[np.uint8], server: processes.Program) -> Timed:
    """So many pictures in one call to a model server, each batch alone."""
    request = predict_batch_request(STABLE_LABEL, pixels)
    with open_channel(f"127.0.0.1:{port}", None) as channel:
        predict = channel.unary_unary(PREDICT_METHOD, wire.PredictRequest.SerializeToString, wire.PredictResponse.FromString)
        return timed(lambda: predict(request, timeout=60), [server.process.pid])


def _quantiles(factors: list[float]) -> tuple[float, ...]:
    """A hundred that stand for all of them."""
    middles = (np.arange(100) + 0.5) / 100
    chosen = np.quantile(factors, middles)
    return tuple(float(factor) for factor in np.round(chosen / chosen.mean(), 4))


def _post(address: str, body: bytes, expected: int) -> None:
    code, text = callers.post(address, body)
    if code != expected:
        raise RuntimeError(f"expected {expected}, got {code}: {text[:300]!r}")


def _cpu_s(pid: int | None) -> float:
    # Of the caller a hundredth of a second would be too coarse.
    return time.process_time() if pid is None else cpu_s(pid)
