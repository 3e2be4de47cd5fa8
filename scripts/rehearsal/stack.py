"""The machines of a rehearsal: gateways that are replaced, and the commands that an operator types."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests import processes

DRAIN_S = "2"
"""Ten times as long as the balancer takes to see that a gateway is not ready."""

_HEAD = re.compile(r'"audit": "(\d+:[0-9a-f]{64})"')


class RehearsalError(Exception):
    """Something is not as it has to be."""


class Machine:
    """One gateway after another, with one audit record."""

    def __init__(self, name: str, folder: Path, model_port: int, settings: dict[str, str]) -> None:
        self.name = name
        self.audit = folder / f"audit-{name}.jsonl"
        self._folder = folder
        self._model_port = model_port
        self._settings = {"GATEWAY_WORKERS": "1"} | settings
        self._settings |= {"GATEWAY_AUDIT_FILE": str(self.audit), "GATEWAY_DRAIN_S": DRAIN_S}
        self._running = ExitStack()
        self._program: processes.Program | None = None
        self._logs: list[Path] = []

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def start(self, release: Path) -> str:
        """A gateway of this release. Returns its address."""
        folder = self._folder / f"{self.name}-{len(self._logs)}"
        folder.mkdir()
        self._logs.append(folder / "gateway.log")
        started = processes.gateway(self._model_port, folder, release, **self._settings)
        self._program, address = self._running.enter_context(started)
        return address

    @property
    def pid(self) -> int:
        """Of the process that has started last, gunicorn's own.

        Raises:
            RehearsalError: none was started.
        """
        if self._program is None:
            raise RehearsalError(f"gateway {self.name} was not started")
        return self._program.process.pid

    def stop(self) -> None:
        """Ask it to end, and wait.

        Raises:
            RehearsalError: it did not end well.
        """
        if self._program is None or self._program.stop():
            raise RehearsalError(f"gateway {self.name} did not end well; see {self._logs[-1]}")
        self._running.close()

    def verify_audit(self) -> int:
        """Check the chain with every end that the logs have kept. Returns how many records there are."""
        heads = [head for log in self._logs for head in _audit_heads(log)]
        # A command line has an end; so many are as good as all, for each holds all before it.
        options = [option for head in heads[-100:] for option in ("--head", head)]
        told = _run([sys.executable, "-m", "gateway.audit", "verify", str(self.audit), *options], processes.ROOT, {})
        return int(told.split()[0])


def cases_command(*arguments: str, release: Path, settings: dict[str, str]) -> str:
    """`python -m gateway.cases` of a release. Returns what it printed."""
    return _run([sys.executable, "-m", "gateway.cases", *arguments], release, settings)


class PostgresDesk:
    """What an operator of PostgreSQL types, who is not the role that the gateways are."""

    def __init__(self, address: str, password: Path) -> None:
        port = address.rpartition(":")[2].partition("/")[0]
        self._environment = {
            "PGHOST": "127.0.0.1",
            "PGPORT": port,
            "PGUSER": "postgres",
            "PGPASSWORD": password.read_text().strip(),
        }

    def run(self, program: str, *arguments: str) -> None:
        """A program of PostgreSQL's own."""
        _run([str(processes.postgres_programs() / program), *arguments], processes.ROOT, self._environment)

    def sql(self, statement: str) -> None:
        """A statement, in the database of the administration."""
        self.run("psql", "--quiet", "--dbname=postgres", "--set=ON_ERROR_STOP=1", f"--command={statement}")


def _run(command: Sequence[str], folder: Path, settings: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | settings, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise RehearsalError(f"{' '.join(command[:6])} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def _audit_heads(log: Path) -> list[str]:
    """By their form: on a disk that was full, lines are torn."""
    return _HEAD.findall(log.read_text(errors="replace"))
