"""`bench_serving.py DOCS`: pictures a second of the released version, in process and through model server and gateway.

Beside it, paired in the same rounds, the network as Keras exports it (float32, BatchNorm in place; its weights are noise, which
costs the same). All callers run on the same machine as what they measure. Writes DOCS/serving-speed.md, its chart and its
figures as JSON. Run it with nothing else running.
"""

import itertools
import json
import os
import platform
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from callers import drive, grpc_caller, http_caller, processor
from matplotlib.figure import Figure

from serving.contract import IMAGE_SHAPE, IMAGES_INPUT, PREDICT_SIGNATURE, PROBABILITIES_OUTPUT, STABLE_LABEL
from serving.models_config import read_models_config
from tests import processes
from tests.pictures import encode, textured
from training.evaluate import load_predict_fn
from training.model import build_classifier

ROUNDS = 3
SECONDS = 3.0
BATCH_SIZES = (1, 8, 32)
CONCURRENCIES = (1, 4, 16, 32)

IN_PROCESS, SERVER, GATEWAY = "in process", "model server", "gateway"
RELEASED, FLOAT32 = "released", "float32, unfolded"


BATCHING = processes.ROOT / "serving" / "config" / "batching.config"
VARIANTS = {
    "one batch thread": (r"num_batch_threads \{ value: \d+ \}", "num_batch_threads { value: 1 }"),
    "no waiting": (r"batch_timeout_micros \{ value: \d+ \}", "batch_timeout_micros { value: 0 }"),
    "waiting 10 ms": (r"batch_timeout_micros \{ value: \d+ \}", "batch_timeout_micros { value: 10000 }"),
    "padding": (r"\Z", "allowed_batch_sizes: [ 1, 2, 4, 8, 16, 32 ]"),
}
"""What is changed in `BATCHING`, one at a time."""

BOUNDS = (
    "What bounds it: the processors. Callers, gateway (JPEG, resizing, HTTP), model server and network share them; in process",
    "the network has them alone. The processor time that a picture costs each of them stands in the last three columns: where",
    "their sum times the pictures a second comes near the processors there are, none is idle. With a model server on another",
    "machine the gateway has its own. For figures of a GPU, start `tensorflow_model_server` on it and point the same callers",
    "at its address; none were taken.",
)


@dataclass(frozen=True)
class Measured:
    """One round of one setting.

    Attributes:
        path, graph: what was called.
        load: pictures in a call in process, callers otherwise.
        rate: pictures a second.
        p50_ms, p99_ms: what half and 99 % of the calls take at most.
        callers_cpu_ms, gateway_cpu_ms, server_cpu_ms: processor time of a picture; in process all of it is the callers'.
    """

    path: str
    graph: str
    load: int
    rate: float
    p50_ms: float
    p99_ms: float
    callers_cpu_ms: float
    gateway_cpu_ms: float
    server_cpu_ms: float


FIGURES = ("rate", "p50_ms", "p99_ms", "callers_cpu_ms", "gateway_cpu_ms", "server_cpu_ms")


def main(docs: Path) -> None:
    """Measure, print and write."""
    version = read_models_config(processes.ROOT / "serving" / "config" / "models.config").labels[STABLE_LABEL]
    released = processes.ROOT / "serving" / "models" / "lesion"
    pixels = np.random.default_rng(1).integers(0, 256, (max(BATCH_SIZES), *IMAGE_SHAPE), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        float32 = write_float32(folder / "float32" / "lesion" / "1")
        graphs = {RELEASED: load_predict_fn(released / str(version)), FLOAT32: tf.saved_model.load(str(float32)).signatures}
        calls: dict[tuple[str, str, int], Callable[[], Measured]] = {}
        for size in BATCH_SIZES:
            batch = pixels[:size]
            float32_call = partial(graphs[FLOAT32][PREDICT_SIGNATURE], **{IMAGES_INPUT: tf.constant(batch)})
            for graph, call in ((RELEASED, partial(graphs[RELEASED], batch)), (FLOAT32, float32_call)):
                calls[IN_PROCESS, graph, size] = partial(measure, IN_PROCESS, graph, size, [call], pictures=size)
        servers, ports = {}, {}
        served = {RELEASED: (released, version, BATCHING), FLOAT32: (float32.parent, 1, BATCHING)}
        for variant, (wanted, instead) in VARIANTS.items():
            changed = folder / f"{variant}.config"
            changed.write_text(re.sub(wanted, instead, BATCHING.read_text()))
            served[f"{RELEASED}, {variant}"] = (released, version, changed)
        for graph, (base, number, batching) in served.items():
            place = folder / f"server {len(ports)}"
            place.mkdir()
            labels = f"{STABLE_LABEL}:{number}"
            servers[graph], ports[graph], _ = stack.enter_context(
                processes.model_server(base, place, labels=labels, batching=str(batching))
            )
            for load in CONCURRENCIES:
                callers = [grpc_caller(stack, ports[graph], pixels[index]) for index in range(load)]
                calls[SERVER, graph, load] = partial(measure, SERVER, graph, load, callers, server=servers[graph])
        settings = {"GATEWAY_WORKERS": "2", "GATEWAY_THREADS": "16"}
        gateway, address = stack.enter_context(processes.gateway(ports[RELEASED], folder, **settings))
        for load in CONCURRENCIES:
            pictures = [encode(textured((600, 450), seed), "JPEG", quality=90) for seed in range(load)]
            callers = [http_caller(stack, f"{address}/api/v1/classifications", picture) for picture in pictures]
            calls[GATEWAY, RELEASED, load] = partial(
                measure, GATEWAY, RELEASED, load, callers, server=servers[RELEASED], gateway=gateway
            )
        rounds = [[call() for call in calls.values()] for _ in range(ROUNDS)]
    write(docs, [list(of_setting) for of_setting in zip(*rounds, strict=True)], version)


def write_float32(folder: Path) -> Path:
    """The network as Keras has it, with the contract's input."""
    classifier = build_classifier("none")

    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        malignant = tf.sigmoid(classifier(tf.cast(images, tf.float32), training=False)[:, 0])
        return {PROBABILITIES_OUTPUT: tf.stack([1.0 - malignant, malignant], axis=1)}

    archive = keras.export.ExportArchive()
    archive.track(classifier)
    archive.add_endpoint(PREDICT_SIGNATURE, predict, [tf.TensorSpec([None, *IMAGE_SHAPE], tf.uint8, IMAGES_INPUT)])
    archive.write_out(str(folder), verbose=False)
    return folder


def measure(
    path: str,
    graph: str,
    load: int,
    callers: list[Callable[[], object]],
    pictures: int = 1,
    server: processes.Program | None = None,
    gateway: processes.Program | None = None,
) -> Measured:
    """One round of one setting; `drive` says how."""
    load_seen = drive(callers, SECONDS, (os.getpid(), gateway and gateway.process.pid, server and server.process.pid))
    callers_ms, gateway_ms, server_ms = (milliseconds / pictures for milliseconds in load_seen.cpu_ms)
    measured = Measured(
        path,
        graph,
        load,
        rate=load_seen.rate * pictures,
        p50_ms=load_seen.p50_ms,
        p99_ms=load_seen.p99_ms,
        callers_cpu_ms=callers_ms,
        gateway_cpu_ms=gateway_ms,
        server_cpu_ms=server_ms,
    )
    print(f"{path:14}{graph:20}{load:4}{measured.rate:8.1f}/s{measured.p50_ms:9.1f}{measured.p99_ms:9.1f} ms", flush=True)
    return measured


def write(docs: Path, settings: list[list[Measured]], version: int) -> None:
    """Table, chart and figures."""
    medians = {
        (rounds[0].path, rounds[0].graph, rounds[0].load): Measured(
            rounds[0].path,
            rounds[0].graph,
            rounds[0].load,
            *(statistics.median(getattr(of, name) for of in rounds) for name in FIGURES),
        )
        for rounds in settings
    }
    spread = {(rounds[0].path, rounds[0].graph, rounds[0].load): [of.rate for of in rounds] for rounds in settings}
    best = max(medians[IN_PROCESS, RELEASED, size].rate for size in BATCH_SIZES)
    speedup = medians[SERVER, RELEASED, 32].rate / medians[SERVER, FLOAT32, 32].rate
    share = medians[GATEWAY, RELEASED, 32].rate / best
    commit = processes.head_commit()
    machine = f"{processor()}, Python {platform.python_version()}, TensorFlow {tf.__version__}"
    lines = [
        "# Speed of serving",
        "",
        "Printed by `make bench-serving`, which writes this page. Nothing is to be edited here.",
        "",
        f"Version {version} at commit {commit}, on {machine}.",
        "Embedded model server; gateway with 2 processes of 16 threads; the callers share the machine and the load.",
        f"Medians of {ROUNDS} rounds of {SECONDS:g} s, all settings in each, with the lowest and the highest rate.",
        "Load: pictures in a call (in process), callers (otherwise).",
        "",
        f"- Released graph (bfloat16, BatchNorm folded) against float32, model server, 32 callers: **{speedup:.2f} times**.",
        f"- Gateway and model server, 32 callers, against the best rate in process: **{share:.0%}**.",
        f"- 99 % of answers of the gateway at 16 callers within **{medians[GATEWAY, RELEASED, 16].p99_ms:.0f} ms**.",
        "",
        "| path | graph | load | pictures/s | lowest to highest | p50 ms | p99 ms | CPU ms callers | gateway | model server |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key, median in sorted(medians.items(), key=lambda item: (item[0][0] != IN_PROCESS, item[0][0] != SERVER, *item[0][1:])):
        low, high = min(spread[key]), max(spread[key])
        figures = [f"{getattr(median, name):.1f}" for name in FIGURES]
        cells = (*key, figures[0], f"{low:.1f} to {high:.1f}", *figures[1:])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", *BOUNDS, "", "![pictures a second by load](figures/serving-speed.png)", ""]
    (docs / "serving-speed.md").write_text("\n".join(lines))
    results = [asdict(of) for of in itertools.chain.from_iterable(settings)]
    (docs / "figures" / "serving-speed.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(medians, docs / "figures" / "serving-speed.png")
    print("\n".join(lines))


def draw(medians: dict[tuple[str, str, int], Measured], path: Path) -> None:
    """Pictures a second over the load, a line for each way."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    for way, graph in dict.fromkeys(key[:2] for key in medians if key[1] in (RELEASED, FLOAT32)):
        loads = sorted(key[2] for key in medians if key[:2] == (way, graph))
        style = "-" if graph == RELEASED else "--"
        axis.plot(loads, [medians[way, graph, load].rate for load in loads], style, marker="o", label=f"{way}, {graph}")
    axis.set(xlabel="pictures in a call (in process) or callers", ylabel="pictures a second", xscale="log", ylim=(0, None))
    axis.set_xticks([1, 4, 8, 16, 32], labels=["1", "4", "8", "16", "32"])
    axis.minorticks_off()
    axis.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
