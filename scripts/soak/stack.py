"""The programs of a soak, each of which can be broken: model server, Redis, and a gateway whose files stand on a small disk."""

import io
import shutil
import signal
import time
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from types import TracebackType

import psutil

from loadtests.corpus import Entry
from loadtests.exchange import Connection, form
from scripts.prove_rollout import copy_under_next_number, replica
from scripts.rehearsal.stack import Machine, cases_command
from scripts.soak.known import Answers
from serving.__main__ import main as serving
from serving.models_config import Deployment, write_models_config
from serving.release import EXTRA, SUMS_FILE, read_metadata
from tests import processes

WORKERS = 2


class SoakError(Exception):
    """Something that the soak needs does not do what it has to."""


class Stack:
    """All of it, running."""

    def __init__(self, folder: Path, disk: Path, released: Path, following: bool = True) -> None:
        """Nothing runs yet.

        Args:
            folder: for what stands on no small disk.
            disk: for what the gateway writes: audit record, cases, metrics, log.
            released: version of the model, which is served.
            following: there is a next version, a copy with another threshold.
        """
        self.disk = disk
        self._base = folder / "lesion"
        self._base.mkdir()
        (self._base / released.name).symlink_to(released)
        versions = [read_metadata(released)]
        versions += [copy_under_next_number(released, self._base)] if following else []
        self.versions = [version.version for version in versions]
        self.known = Answers({version.version: version.thresholds.malignant for version in versions})
        self.cases = {"GATEWAY_CASES_DATABASE": f"sqlite:///{disk}/cases.db"}
        self.held_by_killed: dict[int, float] = {}
        self._folder = folder
        self._candidate = folder / "candidate"
        self._config = folder / "models.config"
        self._config.write_text("")
        labels = dict.fromkeys(("stable", "canary"), self.versions[0])
        write_models_config(self._config, Deployment(str(self._base), frozenset(self.versions[:1]), labels))
        self._running = ExitStack()
        self._starts = 0

    def __enter__(self) -> "Stack":
        with ExitStack() as starting:
            starting.callback(self._running.close)
            self.start_model_server(None)
            self.start_redis(None)
            self._start_gateway()
            starting.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._running.__exit__(kind, error, trace)

    def start_model_server(self, port: int | None) -> None:
        """On a port, a free one unless told; done when it answers."""
        self._starts += 1
        started = replica(self._folder / f"model-server-{self._starts}", self._config, port=port)
        self.model_server, self.model_port = self._running.enter_context(started)

    def start_redis(self, port: int | None) -> None:
        """Likewise."""
        self.redis, self.redis_port = self._running.enter_context(processes.redis_server(self._folder, port=port))

    def _start_gateway(self) -> None:
        cases_command("upgrade", release=processes.ROOT, settings=self.cases)
        metrics = self.disk / "metrics"
        metrics.mkdir()
        settings = self.cases | {
            "GATEWAY_WORKERS": str(WORKERS),
            "GATEWAY_REDIS_URL": f"redis://127.0.0.1:{self.redis_port}/0",
            "GATEWAY_RATE_LIMIT": "1000000 per minute",
            "PROMETHEUS_MULTIPROC_DIR": str(metrics),
        }
        self.gateway = self._running.enter_context(Machine("soak", self.disk, self.model_port, settings))
        self.address = self.gateway.start(processes.ROOT)

    def workers(self) -> list[psutil.Process]:
        """Of the gateway."""
        return psutil.Process(self.gateway.pid).children()

    def watched(self) -> dict[str, int]:
        """Whose memory counts: name -> pid."""
        workers = sorted(worker.pid for worker in self.workers())
        named = {f"gateway worker {number}": pid for number, pid in enumerate(workers, 1)}
        return named | {"model server": self.model_server.process.pid}

    def kill_worker(self) -> int:
        """One of the gateway's, at once; notes on which of our ports it held a request. Returns its pid."""
        worker = self.workers()[0]
        # Stopped first, so that what it holds when it dies is what is counted.
        worker.send_signal(signal.SIGSTOP)
        port = int(self.address.rpartition(":")[2])
        held = [item.raddr.port for item in worker.net_connections("tcp") if item.laddr.port == port and item.raddr]
        # Before it dies: a caller may see the end of its connection sooner than we look at the clock again.
        self.held_by_killed |= dict.fromkeys(held, time.monotonic())
        worker.kill()
        return worker.pid

    def learn(self, entries: list[Entry]) -> None:
        """What each version says of each picture, before there is any load; then the next one is not published yet."""
        self._learn(entries, self.versions[0])
        if len(self.versions) > 1:
            self.roll_out("promote", str(self.versions[1]))
            self._learn(entries, self.versions[1])
            self.roll_out("rollback")
            self.withdraw()

    def publish(self) -> None:
        """The next version, checked."""
        _serving("publish", str(self._candidate), str(self._base))

    def withdraw(self) -> None:
        """As if it were not published yet."""
        shutil.rmtree(self._candidate, ignore_errors=True)
        (self._base / str(self.versions[1])).rename(self._candidate)
        (self._candidate / EXTRA / SUMS_FILE).unlink()

    def roll_out(self, *command: str) -> None:
        """Move labels."""
        _serving(*command, "--config", str(self._config), "--server", f"127.0.0.1:{self.model_port}")

    def _learn(self, entries: list[Entry], version: int) -> None:
        connection = Connection(self.address)
        for entry in entries:
            content_type, body = form([entry.data])
            answer = connection.send("POST", "/api/v1/classifications", {"Content-Type": content_type}, body)
            self.known.learn(answer, entry, version)
        connection.close()


def _serving(*command: str) -> None:
    """`python -m serving`, as an operator types it.

    Raises:
        SoakError: it did not end well.
    """
    with redirect_stdout(io.StringIO()) as told:
        code = serving([*command])
    if code:
        raise SoakError(f"serving {' '.join(command)} ended with {code}: {told.getvalue()}")
