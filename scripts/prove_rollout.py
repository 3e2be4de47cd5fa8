"""`make prove-rollout`: steady traffic through a whole roll-out on two replicas; prints what it cost, ends with 1 if anything.

The released version is served, and a copy of it under the next number with another threshold: an answer that is read with the
other version's threshold shows.
"""

import itertools
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path

import numpy as np
import requests
from tensorflow.core.protobuf import saved_model_pb2

from serving.__main__ import main as serving
from serving.contract import STABLE_LABEL
from serving.metadata import ModelMetadata
from serving.models_config import Deployment, read_models_config, write_models_config
from serving.release import EXTRA, METADATA_FILE, SUMS_FILE, publish, read_metadata
from tests import processes
from tests.pictures import encode, textured

CALLERS = 4
STEADY_S = 4.0


@dataclass(frozen=True)
class Answer:
    """One request: when it was sent, how long it took, its status; of a 200 the version and the threshold it was read with."""

    sent: float
    seconds: float
    status: int
    version: int
    threshold: float


@dataclass(frozen=True)
class Phase:
    """What was done, and when."""

    name: str
    start: float
    end: float


class Traffic:
    """So many callers that post pictures without a pause."""

    def __init__(self, address: str) -> None:
        self.answers: list[Answer] = []
        self._address = address
        self._pictures = [encode(textured((600, 450), seed), "JPEG", quality=90) for seed in range(20)]
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(CALLERS)]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _call(self, number: int) -> None:
        with requests.Session() as session:
            for picture in itertools.cycle(self._pictures[number:] + self._pictures[:number]):
                if self._stopped.is_set():
                    return
                sent = time.monotonic()
                status, version, threshold = self._post(session, picture)
                self.answers.append(Answer(sent, time.monotonic() - sent, status, version, threshold))

    def _post(self, session: requests.Session, picture: bytes) -> tuple[int, int, float]:
        try:
            response = session.post(f"{self._address}/api/v1/classifications", files={"file": ("x.jpg", picture)}, timeout=60)
        except requests.RequestException:
            return 0, 0, 0.0
        if response.status_code != HTTPStatus.OK:
            return response.status_code, 0, 0.0
        answer = response.json()
        return response.status_code, answer["model"]["version"], answer["thresholds"]["malignant"]


@contextmanager
def changed_copy(version: Path, base: Path) -> Iterator[Path]:
    """A copy to change, without its checksums; published on the way out."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "candidate"
        shutil.copytree(version, copy)
        (copy / EXTRA / SUMS_FILE).unlink()
        yield copy
        publish(copy, base)


def copy_under_next_number(version: Path, base: Path) -> ModelMetadata:
    """The same graph with another number and another threshold in the metadata that it carries."""
    with changed_copy(version, base) as copy:
        old = (copy / EXTRA / METADATA_FILE).read_bytes()
        metadata = ModelMetadata.from_json(old)
        thresholds = replace(metadata.thresholds, malignant=metadata.thresholds.uncertain_high)
        metadata = replace(metadata, version=metadata.version + 1, thresholds=thresholds)
        graph = saved_model_pb2.SavedModel.FromString((copy / "saved_model.pb").read_bytes())
        for function in graph.meta_graphs[0].graph_def.library.function:
            for node in function.node_def:
                # To ask for an attribute that is not there would make one.
                if "value" in node.attr and list(node.attr["value"].tensor.string_val) == [old]:
                    node.attr["value"].tensor.string_val[:] = [metadata.to_json().encode()]
        (copy / "saved_model.pb").write_bytes(graph.SerializeToString())
        (copy / EXTRA / METADATA_FILE).write_text(metadata.to_json())
    return metadata


def break_under_next_number(version: Path, base: Path) -> int:
    """A version whose checksums hold and whose graph does not load."""
    metadata = read_metadata(version)
    metadata = replace(metadata, version=metadata.version + 1)
    with changed_copy(version, base) as copy:
        (copy / EXTRA / METADATA_FILE).write_text(metadata.to_json())
        (copy / "saved_model.pb").write_bytes(b"no graph")
    return metadata.version


def prove(released: Path, folder: Path) -> bool:
    """Run it all and print the table. Whether nothing was lost and nothing was paired wrongly."""
    base = folder / "lesion"
    base.mkdir()
    shutil.copytree(released, base / released.name)
    first, second = read_metadata(released), copy_under_next_number(released, base)
    broken = break_under_next_number(base / str(second.version), base)
    thresholds = {metadata.version: metadata.thresholds.malignant for metadata in (first, second)}
    config = folder / "models.config"
    config.write_text("")
    labels = {"stable": first.version, "canary": first.version}
    write_models_config(config, Deployment(str(base), frozenset({first.version}), labels))

    with ExitStack() as stack:
        replicas = [stack.enter_context(replica(folder / name, config)) for name in ("a", "b")]
        addresses = [f"127.0.0.1:{port}" for _, port in replicas]
        servers = [option for address in addresses for option in ("--server", address)]
        target = f"ipv4:{','.join(addresses)}"
        _, address = stack.enter_context(processes.gateway(0, folder, GATEWAY_MODEL_SERVER=target))
        phases: list[Phase] = []

        def run(command: str, *arguments: object, code: int = 0) -> None:
            given = serving([command, *map(str, arguments), "--config", str(config), *servers])
            if given != code:
                sys.exit(f"{command} ended with {given}, expected {code}")

        def measure(name: str, act: Callable[[], object]) -> None:
            start = time.monotonic()
            act()
            phases.append(Phase(name, start, time.monotonic()))

        def kill() -> None:
            replicas[0][0].process.send_signal(signal.SIGKILL)
            time.sleep(STEADY_S)

        def restart() -> None:
            stack.enter_context(replica(folder / "a-again", config, port=replicas[0][1]))
            time.sleep(STEADY_S)

        with Traffic(address) as traffic:
            time.sleep(1.0)
            measure("steady", lambda: time.sleep(STEADY_S))
            measure(f"canary {second.version}", lambda: run("canary", second.version))
            measure("promote", lambda: run("promote"))
            measure(f"steady on {second.version}", lambda: time.sleep(STEADY_S))
            measure("rollback", lambda: run("rollback"))
            measure(f"promote {broken}, broken", lambda: run("promote", broken, code=1))
            measure("one replica killed", kill)
            measure("and started again", restart)
            measure("status", lambda: run("status"))
        if read_models_config(config).labels != labels:
            sys.exit("the roll-out did not end where it began")
    return report(traffic.answers, phases, thresholds)


@contextmanager
def replica(folder: Path, config: Path, port: int | None = None) -> Iterator[tuple[processes.Program, int]]:
    """A model server, and its gRPC port."""
    folder.mkdir()
    with processes.model_server_from(config, folder, port=port) as (program, bound, _):
        yield program, bound


def report(answers: list[Answer], phases: list[Phase], thresholds: dict[int, float]) -> bool:
    """Print a line for each phase; whether nothing was lost and nothing was paired wrongly."""
    columns = ("seconds", "requests", "errors", "wrong", "p50 ms", "p99 ms", "max ms")
    print(f"\n{'phase':24}{''.join(f'{column:>9}' for column in columns)}  versions")
    lost = wrong = 0
    for phase in [*phases, Phase("all", phases[0].start, phases[-1].end)]:
        within = [answer for answer in answers if phase.start <= answer.sent < phase.end]
        times = np.array([answer.seconds for answer in within] or [np.nan]) * 1000
        answered = [answer for answer in within if answer.status == HTTPStatus.OK]
        lost, wrong = len(within) - len(answered), sum(thresholds[answer.version] != answer.threshold for answer in answered)
        versions = Counter(answer.version for answer in answered)
        print(
            f"{phase.name:24}{phase.end - phase.start:9.1f}{len(within):9}{lost:9}{wrong:9}"
            f"{np.median(times):9.0f}{np.quantile(times, 0.99):9.0f}{times.max():9.0f}  "
            f"{', '.join(f'{version}: {count}' for version, count in sorted(versions.items()))}"
        )
    return not lost and not wrong


if __name__ == "__main__":
    configured = read_models_config(processes.ROOT / "serving" / "config" / "models.config").labels[STABLE_LABEL]
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(0 if prove(processes.ROOT / "serving" / "models" / "lesion" / str(configured), Path(temporary)) else 1)
