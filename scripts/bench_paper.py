"""`bench_paper.py DOCS COST`: what the gateway adds, and the stack against the paper's way; writes DOCS/gateway-speed.md.

What the gateway adds is measured before a model server that answers at once, gateway and callers on a core each. The paper's
way is Keras's `.h5` in the Flask process (paper_way.py); both are measured in the same rounds, on all cores. COST is a file
with what bench_gateway.py printed. Run it with nothing else running. Ends with 1 when what is promised does not hold.
"""

import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import keras
import psutil
import tensorflow as tf
from bench_gateway import camera_picture
from callers import Load, drive, grpc_caller, http_caller, processor

from gateway.images import decode, model_input
from gateway.settings import Settings
from serving.contract import STABLE_LABEL
from serving.models_config import read_models_config
from tests import processes
from training.model import build_classifier

ROUNDS = 3
SECONDS = 10.0
CONCURRENCIES = (1, 4, 16)
SIZES = ((1024, 768), (4000, 3000))
AT = 16
"""Callers at which what is promised is looked at."""

MIN_RATE_TIMES, MAX_P99_SHARE, MAX_MEMORY_SHARE = 4.0, 1 / 5, 1 / 10
DERMSERVE, PAPER = "Dermserve", "Keras in Flask"
ROUTE = "/api/v1/classifications"
INSTANT_SLOTS = 1_000


def main(docs: Path, cost: Path) -> None:
    """Measure, print and write."""
    pictures = {size: camera_picture(size) for size in SIZES}
    added = [_measure_added(size, picture) for size, picture in pictures.items()]
    compared, memory_mb = _compare(pictures[SIZES[0]])
    page, holds = _page(added, compared, memory_mb, cost.read_text())
    (docs / "gateway-speed.md").write_text(page)
    print(page)
    if not holds:
        raise SystemExit("what is promised does not hold; see the page")


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started within stays on one core, and so does this process until the end."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(everywhere)[core]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, everywhere)


def _measure_added(size: tuple[int, int], picture: bytes) -> list[str]:
    """Cells of the table: one worker on one core; the instant model server and the callers on another."""
    image = model_input(decode(picture, Settings.max_picture_pixels))
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        with on_core(1):
            _, port = stack.enter_context(processes.paced_server(folder, INSTANT_SLOTS, 0.0))
        with on_core(0):
            gateway, address = stack.enter_context(processes.gateway(port, folder, GATEWAY_WORKERS="1"))
        with on_core(1):
            bare, through, full = [], [], []
            for _ in range(ROUNDS):
                bare.append(drive([grpc_caller(stack, port, image)], SECONDS / 3))
                through.append(drive([http_caller(stack, address + ROUTE, picture)], SECONDS / 3))
                callers = [http_caller(stack, address + ROUTE, picture) for _ in range(8)]
                full.append(drive(callers, SECONDS / 3, [gateway.process.pid]))
        resident_mb = max(_resident_mb(gateway))
    return [
        f"{size[0]} x {size[1]}, {len(picture) / 1e6:.1f} MB",
        f"{_median(full, 'rate'):.0f}",
        f"{statistics.median(of.cpu_ms[0] for of in full):.1f}",
        f"{_median(bare, 'p50_ms'):.1f}",
        f"{_median(bare, 'p99_ms'):.1f}",
        f"{_median(through, 'p50_ms') - _median(bare, 'p50_ms'):.1f}",
        f"{_median(through, 'p99_ms') - _median(bare, 'p99_ms'):.1f}",
        f"{resident_mb:.0f}",
    ]


def _compare(picture: bytes) -> tuple[dict[tuple[str, int], list[Load]], dict[str, list[float]]]:
    """Rounds of both ways in turn; each waits, idle, while the other is measured. Then the memory of each process."""
    base = processes.ROOT / "serving" / "models" / "lesion"
    version = read_models_config(processes.ROOT / "serving" / "config" / "models.config").labels[STABLE_LABEL]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        model, port = folder / "model.h5", processes.free_port()
        build_classifier("none").save(model)
        paper = stack.enter_context(
            processes.running([sys.executable, "scripts/paper_way.py", str(model), str(port)], folder / "paper.log")
        )
        paper.wait_for(lambda: processes.is_listening(port))
        labels = f"{STABLE_LABEL}:{version}"
        server, model_port, _ = stack.enter_context(processes.model_server(base, folder, labels=labels))
        gateway, address = stack.enter_context(processes.gateway(model_port, folder))
        addresses = {DERMSERVE: address + ROUTE, PAPER: f"http://127.0.0.1:{port}/predict"}
        loads: dict[tuple[str, int], list[Load]] = {}
        for _ in range(ROUNDS):
            for concurrency in CONCURRENCIES:
                for way, url in addresses.items():
                    callers: list[Callable[[], object]] = [http_caller(stack, url, picture) for _ in range(concurrency)]
                    loads.setdefault((way, concurrency), []).append(drive(callers, SECONDS))
                    seen = loads[way, concurrency][-1]
                    print(f"{way:16}{concurrency:4}{seen.rate:8.1f}/s{seen.p50_ms:9.1f}{seen.p99_ms:9.1f} ms", flush=True)
        memory_mb = {
            DERMSERVE: _resident_mb(gateway),
            PAPER: [psutil.Process(paper.process.pid).memory_info().rss / 1e6],
            "model server": [psutil.Process(server.process.pid).memory_info().rss / 1e6],
        }
    return loads, memory_mb


def _resident_mb(gateway: processes.Program) -> list[float]:
    return [worker.memory_info().rss / 1e6 for worker in psutil.Process(gateway.process.pid).children()]


def _median(loads: list[Load], figure: str) -> float:
    return statistics.median(getattr(load, figure) for load in loads)


def _page(
    added: list[list[str]],
    compared: dict[tuple[str, int], list[Load]],
    memory_mb: dict[str, list[float]],
    cost: str,
) -> tuple[str, bool]:
    """The text, and whether what is promised holds."""
    ours, papers = compared[DERMSERVE, AT], compared[PAPER, AT]
    times = _median(ours, "rate") / _median(papers, "rate")
    p99_share = _median(ours, "p99_ms") / _median(papers, "p99_ms")
    memory_share = max(memory_mb[DERMSERVE]) / memory_mb[PAPER][0]
    verdicts = [
        (times >= MIN_RATE_TIMES, f"{times:.1f} times its pictures a second (promised: at least {MIN_RATE_TIMES:g})"),
        (p99_share <= MAX_P99_SHARE, f"{p99_share:.2f} of its p99 (promised: at most {MAX_P99_SHARE:g})"),
        (
            memory_share <= MAX_MEMORY_SHARE,
            f"{memory_share:.3f} of its memory (promised: at most {MAX_MEMORY_SHARE:g})",
        ),
    ]
    lines = [
        "# Speed of the gateway",
        "",
        "Printed by `make bench-gateway`, which writes this page. Nothing is to be edited here.",
        "",
        f"At commit {processes.head_commit()}, on {processor()}, Python {platform.python_version()}, "
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}.",
        f"Medians of {ROUNDS} rounds, settings in turn within each.",
        "",
        "## What the gateway adds",
        "",
        "One process on one core. The model server answers at once; it and the callers have another core. The bare call is",
        "the same gRPC call without the gateway; what is added is decoding, resizing, HTTP and the decision, one caller.",
        "",
        "| JPEG | requests/s and core, 8 callers | CPU ms | bare call p50 ms | p99 | added p50 ms | added p99 | MB a worker |",
        "|---|---|---|---|---|---|---|---|",
        *(f"| {' | '.join(cells)} |" for cells in added),
        "",
        "## Against the paper's way",
        "",
        "The paper loads a Keras `.h5` of the same network in the Flask process and calls `model.predict`; its weights are",
        "noise, which costs the same (`scripts/paper_way.py`). Dermserve is a gateway of two processes and the embedded model",
        "server with the released version. Callers and all processes share the machine.",
        f"The picture is a JPEG of {SIZES[0][0]} x {SIZES[0][1]} pixels.",
        "",
        f"With {AT} callers Dermserve has",
        "",
        *(f"- **{text}**{'' if holds else ': not reached'}" for holds, text in verdicts),
        "",
        "| way | callers | pictures/s | lowest to highest | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|",
    ]
    for (way, concurrency), loads in sorted(compared.items()):
        rates = [load.rate for load in loads]
        figures = (f"{statistics.median(rates):.1f}", f"{min(rates):.1f} to {max(rates):.1f}")
        lines.append(
            f"| {way} | {concurrency} | {figures[0]} | {figures[1]} "
            f"| {_median(loads, 'p50_ms'):.0f} | {_median(loads, 'p99_ms'):.0f} |"
        )
    lines += [
        "",
        f"Resident after it: the larger of {len(memory_mb[DERMSERVE])} gateway workers {max(memory_mb[DERMSERVE]):.0f} MB, "
        f"their model server {memory_mb['model server'][0]:.0f} MB; the paper's process {memory_mb[PAPER][0]:.0f} MB.",
        "A further worker of the gateway costs a worker; the paper's way loads network and TensorFlow once more for each.",
        "",
        "## Start, memory and decoding",
        "",
        "```",
        cost.strip(),
        "```",
        "",
    ]
    return "\n".join(lines), all(holds for holds, _ in verdicts)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
