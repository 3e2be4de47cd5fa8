"""Who is compared, with what each one serves and how it is set up; the service of each is in a module of its own."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench.running import Running, Served, engine, program
from scripts.bench.tolerance import Answer
from serving.contract import STABLE_LABEL
from tests import processes

HERE = "scripts.bench"
DERMSERVE = "Dermserve"
QUIET_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
"""Nothing is sent anywhere, and no token is written to the home folder."""

RELEASED = "the released SavedModel, bfloat16"


@dataclass(frozen=True)
class Prepared:
    """What contestants are started with.

    Attributes:
        version: folder of the released version.
        h5, onnx: the same model in other forms.
        pythons: interpreter of each environment.
    """

    version: Path
    h5: Path
    onnx: Path
    pythons: Mapping[str, str]


@dataclass(frozen=True)
class Contestant:
    """One way to serve.

    Attributes:
        name: as on the page.
        environment: role of its environment; None is the one that this runs in.
        packages: of that environment's lock, whose versions are told.
        serves: what exactly.
        setup: how, and who says so.
        start: brings it up in an empty folder; it need not answer yet.
        is_server: what it is compared with: a server, or the processor's ceiling.
    """

    name: str
    environment: str | None
    packages: tuple[str, ...]
    serves: str
    setup: str
    start: Callable[[Prepared, Path], AbstractContextManager[Running]]
    is_server: bool = True


@contextmanager
def _dermserve(prepared: Prepared, folder: Path) -> Iterator[Running]:
    labels = f"{STABLE_LABEL}:{prepared.version.name}"
    with (
        processes.model_server(prepared.version.parent, folder, labels=labels) as (server, port, _),
        processes.gateway(port, folder) as (gateway, address),
    ):
        pids = [server.process.pid, gateway.process.pid]
        yield Served(f"{address}/api/v1/classifications", pids, _of_dermserve)


@contextmanager
def _flask(prepared: Prepared, folder: Path) -> Iterator[Running]:
    port = processes.free_port()
    with program([sys.executable, "-m", f"{HERE}.paper", str(prepared.h5), str(port)], folder) as started:
        yield Served(f"http://127.0.0.1:{port}/predict", [started.process.pid], _plain)


@contextmanager
def _gunicorn(prepared: Prepared, folder: Path) -> Iterator[Running]:
    port = processes.free_port()
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "2", "--timeout", "120"]
    with program([*command, f"{HERE}.paper:create_app('{prepared.h5}')"], folder) as started:
        yield Served(f"http://127.0.0.1:{port}/predict", [started.process.pid], _plain)


@contextmanager
def _bentoml(prepared: Prepared, folder: Path) -> Iterator[Running]:
    port = processes.free_port()
    command = [prepared.pythons["bentoml"], "-m", "bentoml", "serve", f"{HERE}.bentoml_service:Lesion"]
    own = {"BENCH_VERSION": str(prepared.version), "BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "True"}
    with program([*command, "--host", "127.0.0.1", "--port", str(port)], folder, **own) as started:
        yield Served(f"http://127.0.0.1:{port}/classify", [started.process.pid], lambda answers: _plain(answers[0]))


@contextmanager
def _ray(prepared: Prepared, folder: Path) -> Iterator[Running]:
    port = processes.free_port()
    command = [prepared.pythons["ray"], "-m", f"{HERE}.ray_service", str(prepared.version), str(port), str(folder)]
    with program(command, folder, RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S="60", **QUIET_RAY) as started:
        yield Served(f"http://127.0.0.1:{port}/", [started.process.pid], _plain, is_form=False)


def _openvino(precision: str) -> Callable[[Prepared, Path], AbstractContextManager[Running]]:
    def start(prepared: Prepared, folder: Path) -> AbstractContextManager[Running]:
        command = [prepared.pythons["engines"], "-m", f"{HERE}.openvino_engine", str(prepared.version), precision]
        return engine(command, folder)

    return start


def _onnx(prepared: Prepared, folder: Path) -> AbstractContextManager[Running]:
    return engine([prepared.pythons["engines"], "-m", f"{HERE}.onnx_engine", str(prepared.onnx)], folder)


def _of_dermserve(document: Any) -> Answer:
    return Answer(document["probabilities"]["malignant"], document["none_score"])


def _plain(document: Any) -> Answer:
    return Answer(**document)


KERAS = "its weights in Keras's ResNet50, float32, an `.h5`; no none score"
CONTESTANTS = (
    Contestant(
        DERMSERVE,
        None,
        ("tensorflow", "gunicorn"),
        RELEASED,
        "what `make up` starts, all defaults: a gateway of two processes, the embedded model server with `batching.config`. It "
        "also verifies the file, judges its quality, decides, counts and logs",
        _dermserve,
    ),
    Contestant(
        "Keras in Flask",
        None,
        ("tensorflow", "keras", "flask"),
        KERAS,
        "the paper's way: one process, a thread for each request, `model.predict` on one picture (`scripts/bench/paper.py`)",
        _flask,
    ),
    Contestant(
        "Keras in Flask, gunicorn",
        None,
        ("tensorflow", "keras", "gunicorn"),
        KERAS,
        "the same under gunicorn: two synchronous workers, one for a core (`scripts/bench/paper.py`)",
        _gunicorn,
    ),
    Contestant(
        "BentoML",
        "bentoml",
        ("bentoml", "tensorflow"),
        RELEASED,
        "its adaptive batching, up to 32; one worker with TensorFlow's two threads (`scripts/bench/bentoml_service.py`)",
        _bentoml,
    ),
    Contestant(
        "Ray Serve",
        "ray",
        ("ray", "tensorflow"),
        RELEASED,
        "its dynamic batching, up to 32 and 2 ms; one replica that reserves both cores (`scripts/bench/ray_service.py`)",
        _ray,
    ),
    Contestant(
        "OpenVINO, in process",
        "engines",
        ("openvino",),
        "the released SavedModel as OpenVINO reads it, computed in float32",
        "no server: JPEG to answer in threads of one process; OpenVINO's own hints (`scripts/bench/openvino_engine.py`)",
        _openvino("f32"),
        is_server=False,
    ),
    Contestant(
        "OpenVINO, in process, bfloat16",
        "engines",
        ("openvino",),
        "the released SavedModel, all of it in bfloat16, as OpenVINO chooses here by itself",
        "as above",
        _openvino("bf16"),
        is_server=False,
    ),
    Contestant(
        "ONNX Runtime, in process",
        "engines",
        ("onnxruntime", "tf2onnx"),
        "the released graph with its bfloat16 widened to float32, as ONNX",
        "no server: as above; both cores for one picture, or one for each of two (`scripts/bench/onnx_engine.py`)",
        _onnx,
        is_server=False,
    ),
)
