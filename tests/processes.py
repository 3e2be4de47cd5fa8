"""Runs the real programs for a test: started, waited for, and shown on failure."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import requests
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parent.parent
KUBECTL = Path(os.environ.get("VENV_KUBECTL", ROOT / ".venvs" / "kubectl")) / "bin" / "kubectl"
"""Where scripts/test.sh has put it."""

BUSY = "accepted_p95_ms<=15000,accepted_p99_ms<=15000,batch_p95_ms<=20000,lag_p99_ms<=5000,availability>=0.5"
"""Of a load test, on a machine that runs other tests meanwhile: how fast it is, and how much is refused, is no matter."""

READY_TIMEOUT_S = 90.0
NOBODY = 65_534
"""The user without rights that every Linux has."""

MODEL_SERVERS = {"embedded": [sys.executable, "-m", "serving.embedded"]}
"""Programs that a test can start as a model server: ours, and the real one where it is on the PATH."""
if shutil.which("tensorflow_model_server"):
    MODEL_SERVERS["real"] = ["tensorflow_model_server"]


class Program:
    """A running program and what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, is_ready: Callable[[], bool], timeout_s: float = READY_TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output}"
            assert time.monotonic() < deadline, f"not ready after {timeout_s} s:\n{self.output}"
            time.sleep(0.05)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


@contextmanager
def running(command: Sequence[str], log: Path, cwd: Path = ROOT, **environment: str) -> Iterator[Program]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    program = Program(process, log)
    try:
        yield program
    finally:
        program.stop()


@contextmanager
def model_server(
    base: Path,
    folder: Path,
    *flags: str,
    batching: str | None = "serving/config/batching.config",
    labels: str = "stable:1",
    program: Sequence[str] | None = None,
) -> Iterator[tuple[Program, int, int]]:
    """A model server over a folder of versions, the embedded one unless told. Gives the program, its gRPC and its REST port."""
    lines = "".join(
        f'version_labels {{ key: "{label}" value: {version} }} '
        for label, version in (item.split(":") for item in labels.split(",") if item)
    )
    config = folder / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "lesion" base_path: "{base}" model_platform: "tensorflow" '
        f"model_version_policy {{ latest {{ num_versions: 2 }} }} {lines} }} }}"
    )
    with model_server_from(config, folder, *flags, batching=batching, program=program) as started:
        yield started


@contextmanager
def model_server_from(
    config: Path,
    folder: Path,
    *flags: str,
    batching: str | None = "serving/config/batching.config",
    program: Sequence[str] | None = None,
    port: int | None = None,
) -> Iterator[tuple[Program, int, int]]:
    """As `model_server`, over a models.config that somebody else has written, and on a gRPC port if one is given."""
    port, rest_port = port or free_port(), free_port()
    command = [*(program or [sys.executable, "-m", "serving.embedded"]), f"--port={port}", f"--rest_api_port={rest_port}"]
    command += [f"--model_config_file={config}", "--monitoring_config_file=serving/config/monitoring.config"]
    command += ["--allow_version_labels_for_unavailable_models=true", "--max_num_load_retries=0", "--grpc_max_threads=96"]
    if batching:
        command += ["--enable_batching=true", f"--batching_parameters_file={batching}"]
    with running([*command, *flags], folder / "model-server.log") as started:
        # The port that opens last. The real server also says so, but to a log that `running` keeps quiet.
        started.wait_for(lambda: is_listening(rest_port))
        yield started, port, rest_port


@contextmanager
def gateway(model_port: int, folder: Path, release: Path = ROOT, **settings: str) -> Iterator[tuple[Program, str]]:
    """gunicorn with the gateway, of another release where one is given. Gives the program and its address."""
    environment = {"GATEWAY_BIND": "127.0.0.1:0", "GATEWAY_MODEL_SERVER": f"127.0.0.1:{model_port}"} | settings
    command = [sys.executable, "-m", "gunicorn", "--config", "gateway/gunicorn.conf.py", "gateway.wsgi:app"]
    with running(command, folder / "gateway.log", release, **environment) as program:
        program.wait_for(lambda: "Listening at: http" in program.output)
        address = re.search(r"Listening at: (http://[\d.:]+)", program.output)
        assert address
        program.wait_for(lambda: _is_ready(address[1]))
        yield program, address[1]


def post_picture(
    address: str, data: bytes, path: str = "/api/v1/classifications", timeout_s: float = 60.0
) -> requests.Response:
    """On a connection of its own. The form's fields are those of the page; the API ignores the one it does not know."""
    form = {"data": {"consent": "yes"}, "files": {"file": ("x.png", data)}}
    return requests.post(f"{address}{path}", timeout=timeout_s, **form)


def read_metrics(address: str) -> dict[tuple[str, ...], float]:
    """Values of a gateway, by the name without its prefix and the labels' values."""
    families = text_string_to_metric_families(requests.get(f"{address}/metrics", timeout=30).text)
    return {
        (sample.name.removeprefix("dermserve_gateway_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def model_server_total(rest_port: int, name: str) -> float:
    """Sum over all series of a model server's counter, or of a histogram's `_count` or `_sum`; 0 while there is none."""
    page = requests.get(f"http://127.0.0.1:{rest_port}/monitoring/prometheus/metrics", timeout=10).text
    # The parser, not the server, appends _total to counters.
    names = {f":tensorflow:serving:{name}", f":tensorflow:serving:{name}_total"}
    return sum(
        sample.value for family in text_string_to_metric_families(page) for sample in family.samples if sample.name in names
    )


@contextmanager
def paced_server(folder: Path, slots: int, seconds: float) -> Iterator[tuple[Program, int]]:
    """A model server that answers `slots` pictures at a time, each after so many seconds. Gives the program and its port."""
    port = free_port()
    command = [sys.executable, "-m", "tests.paced_server", str(port), str(slots), str(seconds)]
    with running(command, folder / "paced-server.log") as program:
        program.wait_for(lambda: is_listening(port))
        yield program, port


@contextmanager
def redis_server(folder: Path, *flags: str, port: int | None = None) -> Iterator[tuple[Program, int]]:
    """A Redis that keeps nothing on the disk. Gives the program and its port."""
    port = port or free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with running([*command, "--dir", str(folder), *flags], folder / "redis.log") as program:
        program.wait_for(lambda: is_listening(port))
        yield program, port


@contextmanager
def postgres_server(folder: Path) -> Iterator[tuple[Program, str, Path]]:
    """PostgreSQL with an empty database `cases`, which belongs to an ordinary role.

    Gives the program, the address for that role without a password, and the file of the password, which `postgres` has, too.
    """
    # It refuses to run as root, and pytest's folders are root's alone.
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.getuid() == 0 else []
    programs = postgres_programs()
    port, password = free_port(), folder / "password"
    password.write_text("correct horse\n")
    with tempfile.TemporaryDirectory(prefix="dermserve-postgres-") as home:
        if as_nobody:
            os.chown(home, NOBODY, NOBODY)
        setup = [programs / "initdb", f"--pgdata={home}/data", "--username=postgres", "--auth=scram-sha-256", "--no-sync"]
        shared_password = Path(home, "password")
        shared_password.write_text(password.read_text())
        shared_password.chmod(0o644)
        # Without home as working directory it complains of ours.
        subprocess.run([*as_nobody, *setup, f"--pwfile={shared_password}"], cwd=home, check=True, capture_output=True)
        server = [*as_nobody, str(programs / "postgres"), "-D", f"{home}/data", "-h", "127.0.0.1", "-p", str(port)]
        with running([*server, "-k", "", "-c", "fsync=off", "-c", "max_connections=40"], folder / "postgres.log") as program:
            program.wait_for(lambda: "ready to accept connections" in program.output)
            maintenance = f"host=127.0.0.1 port={port} user=postgres dbname=postgres password='correct horse'"
            with psycopg.connect(maintenance, autocommit=True) as connection:
                connection.execute("CREATE ROLE dermserve LOGIN PASSWORD 'correct horse'")
                connection.execute("CREATE DATABASE cases OWNER dermserve")
            yield program, f"postgresql+psycopg://dermserve@127.0.0.1:{port}/cases", password
            # SIGTERM would wait for every client.
            program.process.send_signal(signal.SIGINT)
            program.process.wait(timeout=30)


def postgres_programs() -> Path:
    """The folder of the newest ones; Debian puts only their wrappers on the PATH."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health/live", timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def is_listening(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not so after {timeout_s} s"
        time.sleep(0.05)


def head_commit(checkout: Path = ROOT) -> str:
    """What is checked out, for the pages that a measurement writes; with `-changed` if anything but pages is not so."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=True).stdout.strip()

    # The page of the measurement before this one may not be committed yet, and measures nothing.
    changed = git("status", "--porcelain", "--", ".", ":(exclude)docs/*.md")
    return git("rev-parse", "--short", "HEAD") + ("-changed" if changed else "")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
