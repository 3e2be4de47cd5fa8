"""A contestant that is up: asked one picture, or by many callers; what memory it takes; and how it goes down again."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import psutil
import requests

from scripts.bench.load import Cell, ComeBackError, measure
from scripts.bench.tolerance import Answer, check
from tests import processes

TIMEOUT_S = 120.0
_GONE_S = 10.0
_POLL_S = 0.02


class Running(Protocol):
    """What is measured."""

    pids: Sequence[int]

    def ask(self, picture: Path) -> Answer:
        """One picture."""

    def measure(self, picture: Path, expected: Answer, callers: int, seconds: float) -> Cell:
        """So many callers; every answer is checked."""


class Served:
    """Behind HTTP."""

    def __init__(self, address: str, pids: Sequence[int], read: Callable[[Any], Answer], is_form: bool = True) -> None:
        """One that listens, or will.

        Args:
            address: where pictures are posted.
            pids: its processes; their children count too.
            read: JSON of an answer -> answer.
            is_form: the picture is a form's field `file`, otherwise the whole body.
        """
        self.pids = pids
        self._address = address
        self._read = read
        self._is_form = is_form

    def ask(self, picture: Path) -> Answer:
        """One picture, on a connection of its own."""
        with requests.Session() as session:
            return self._post(session, picture.read_bytes())

    def measure(self, picture: Path, expected: Answer, callers: int, seconds: float) -> Cell:
        """Each caller has a connection of its own, kept as long as the server keeps it."""
        data = picture.read_bytes()
        with ExitStack() as stack:
            calls = [self._caller(stack.enter_context(requests.Session()), data, expected) for _ in range(callers)]
            return measure(calls, seconds)

    def _caller(self, session: requests.Session, picture: bytes, expected: Answer) -> Callable[[], None]:
        def call() -> None:
            check("timed", self._post(session, picture), expected)

        return call

    def _post(self, session: requests.Session, picture: bytes) -> Answer:
        body: Mapping[str, Any] = {"files": {"file": ("x.jpg", picture)}} if self._is_form else {"data": picture}
        answered = session.post(self._address, timeout=TIMEOUT_S, **body)
        if answered.status_code == requests.codes.service_unavailable and "Retry-After" in answered.headers:
            # The server may close an idle connection just when it would be used again.
            session.close()
            raise ComeBackError(float(answered.headers["Retry-After"]))
        answered.raise_for_status()
        return self._read(answered.json())


class InProcess:
    """An engine in a process of its own, spoken to in JSON lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pids = [process.pid]
        self._process = process

    def ask(self, picture: Path) -> Answer:
        """One picture."""
        return Answer(**self._exchange(picture=str(picture)))

    def measure(self, picture: Path, expected: Answer, callers: int, seconds: float) -> Cell:
        """Its callers are threads in there."""
        asked = {"picture": str(picture), "expected": asdict(expected), "callers": callers, "seconds": seconds}
        return Cell(**self._exchange(**asked))

    def _exchange(self, **asked: object) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("started without pipes")
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the engine ended with {self._process.wait(_GONE_S)}")
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def program(command: Sequence[str], folder: Path, **environment: str) -> Iterator[processes.Program]:
    """Run a server from the checkout. Whatever it leaves behind of itself is ended, too."""
    paths = {"PYTHONPATH": str(processes.ROOT)}
    with processes.running(command, folder / "program.log", **paths, **environment) as started:
        try:
            yield started
        finally:
            family = psutil.Process(started.process.pid).children(recursive=True) if started.process.poll() is None else []
            started.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                started.process.wait(_GONE_S)
            _, left = psutil.wait_procs(family, _GONE_S)
            for member in left:
                with suppress(psutil.NoSuchProcess):
                    member.kill()
            started.process.kill()


@contextmanager
def engine(command: Sequence[str], folder: Path) -> Iterator[InProcess]:
    """Run an engine from the checkout."""
    with (folder / "engine.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=processes.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
    with process:
        try:
            yield InProcess(process)
        finally:
            process.kill()


def wait_for_answer(running: Running, picture: Path) -> None:
    """Until one that is starting answers a picture.

    Raises:
        requests.RequestException: the last refusal of one that has ended meanwhile, or takes too long.
    """
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            running.ask(picture)
        except (requests.RequestException, ComeBackError):
            is_up = all(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in running.pids)
            if not is_up or time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)
        else:
            return


def memory_mb(pids: Sequence[int]) -> float:
    """Proportional set size of processes and their children: pages that several share count once."""
    total = 0
    for pid in pids:
        top = psutil.Process(pid)
        for member in (top, *top.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += member.memory_full_info().pss
    return total / 1e6
