"""Two gateways, PostgreSQL and Redis: what may be done while people are served, and the loss of the database."""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gateway.cases.tables import REVISION
from scripts.prove_rollout import Phase, copy_under_next_number, replica
from scripts.rehearsal.ledger import read_record
from scripts.rehearsal.report import STEADY_S, Rehearsal
from scripts.rehearsal.stack import Machine, PostgresDesk, RehearsalError, cases_command
from scripts.rehearsal.traffic import Balancer, Traffic
from serving.__main__ import main as serving
from serving.models_config import Deployment, read_models_config, write_models_config
from serving.release import read_metadata
from tests import processes, releases


class Replicated:
    """The stack, and each thing that is done to it."""

    def __init__(self, rehearsal: Rehearsal, folder: Path, released: Path) -> None:
        self.rehearsal = rehearsal
        self._folder = folder
        self._dump = folder / "cases.dump"
        self._next = releases.next_release(folder / "next")
        base = folder / "lesion"
        base.mkdir()
        (base / released.name).symlink_to(released)
        first, self._second = read_metadata(released), copy_under_next_number(released, base)
        self._thresholds = {metadata.version: metadata.thresholds.malignant for metadata in (first, self._second)}
        self._labels = {"stable": first.version, "canary": first.version}
        self._config = folder / "models.config"
        self._config.write_text("")
        write_models_config(self._config, Deployment(str(base), frozenset({first.version}), self._labels))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Everything started, with traffic."""
        with ExitStack() as self._stack:
            _, self._model_port = self._stack.enter_context(replica(self._folder / "model-server", self._config))
            _, address, password = self._stack.enter_context(processes.postgres_server(self._folder))
            self._redis, self._redis_port = self._stack.enter_context(processes.redis_server(self._folder))
            self.cases = {"GATEWAY_CASES_DATABASE": address, "GATEWAY_CASES_PASSWORD_FILE": str(password)}
            self._beside = self.cases | {"GATEWAY_CASES_DATABASE": f"{address.removesuffix('/cases')}/restored"}
            self._desk = PostgresDesk(address, password)
            redis = {"GATEWAY_REDIS_URL": f"redis://127.0.0.1:{self._redis_port}/0", "GATEWAY_RATE_LIMIT": "100000 per minute"}
            cases_command("upgrade", release=processes.ROOT, settings=self.cases)
            self._balancer = self._stack.enter_context(Balancer())
            machines = (Machine(name, self._folder, self._model_port, self.cases | redis) for name in ("a", "b"))
            self._machines = [self._stack.enter_context(machine) for machine in machines]
            for machine in self._machines:
                self._balancer.set(machine.name, machine.start(processes.ROOT))
            with Traffic(self._balancer, self._thresholds) as self.traffic:
                yield
        self.rehearsal.asked += self.traffic.asked
        for machine in self._machines:
            fact = f"Audit record of gateway {machine.name}: {machine.verify_audit()} records, the chain holds."
            self.rehearsal.facts.append(fact)
        if read_models_config(self._config).labels != self._labels:
            self.rehearsal.faults.append("the model's roll-out did not end where it began")

    def go_forward_and_back(self) -> None:
        """Tables, gateways, model; and back in the other order."""
        during, check = self.rehearsal.during, self.rehearsal.check_record
        version = str(self._second.version)
        during("steady")
        during("tables upgraded", lambda: cases_command("upgrade", release=self._next, settings=self.cases))
        during("gateways upgraded", lambda: self._roll(self._next))
        check("after the upgrade", self.cases, self.traffic.ledger)
        during(f"model {version} promoted", lambda: self._serving("promote", version))
        during("model rolled back", lambda: self._serving("rollback"))
        during("tables downgraded", lambda: cases_command("downgrade", REVISION, release=self._next, settings=self.cases))
        during("gateways rolled back", lambda: self._roll(processes.ROOT))
        check("after the rollback", self.cases, self.traffic.ledger)
        during("Redis lost and back", self._lose_redis)

    def lose_the_record(self) -> None:
        """And bring it back beside the place where it was."""
        during, facts = self.rehearsal.during, self.rehearsal.facts
        dump = f"--file={self._dump}"
        backup = during("backup", lambda: self._desk.run("pg_dump", "--format=custom", dump, "cases"))
        during("steady after it")
        held = self.rehearsal.check_record("before the loss", self.cases, self.traffic.ledger)
        lost = during("database lost", self._lose_database, may_refuse=True)
        during("restored beside it", lambda: self._restore(backup), may_refuse=True)
        during("steady at last")
        kept_again = [kept.answered for kept in self.traffic.ledger.values() if kept.sent > lost.end]
        away_s = min(kept_again, default=math.inf) - lost.start
        facts += [
            f"PostgreSQL: at the loss the record held {held} cases, and the backup was {lost.start - backup.end:.1f} s old.",
            f"It was away for {away_s:.1f} s, {STEADY_S:.0f} s of them before anybody began; pictures were answered.",
        ]

    def _roll(self, release: Path) -> None:
        for machine in self._machines:
            machine.stop()
            self._balancer.set(machine.name, machine.start(release))

    def _serving(self, *command: str) -> None:
        if serving([*command, "--config", str(self._config), "--server", f"127.0.0.1:{self._model_port}"]):
            raise RehearsalError(f"{command[0]} did not succeed")

    def _lose_redis(self) -> None:
        self._redis.stop()
        time.sleep(STEADY_S)
        self._stack.enter_context(processes.redis_server(self._folder, port=self._redis_port))
        time.sleep(STEADY_S / 2)

    def _lose_database(self) -> None:
        self._desk.sql("DROP DATABASE cases WITH (FORCE)")
        time.sleep(STEADY_S)

    def _restore(self, backup: Phase) -> None:
        """The steps of docs/recovery.md: nobody sees the record before the erasures are done."""
        self._desk.run("createdb", "--owner=dermserve", "restored")
        options = ["--exit-on-error", "--no-owner", "--role=dermserve", "--dbname=restored"]
        self._desk.run("pg_restore", *options, str(self._dump))
        dumped = read_record(self._beside)
        cases_command("upgrade", release=processes.ROOT, settings=self._beside)
        records = [option for machine in self._machines for option in ("--audit", str(machine.audit))]
        settings = self._beside | {"GATEWAY_AUDIT_FILE": str(self._machines[0].audit)}
        told = cases_command("erase-again", *records, release=processes.ROOT, settings=settings)
        ledger = dict(self.traffic.ledger)
        self.rehearsal.check_record("after the restoration", self._beside, ledger, moment=backup)
        found = read_record(self._beside)
        gone = {id_ for id_, kept in ledger.items() if id_ not in found and kept.erasure[0] == math.inf}
        unnamed = gone - set(told.splitlines()[1:])
        self.rehearsal.faults += [f"the audit record does not name {id_}, which is lost" for id_ in unnamed]
        erased = len(dumped) - len(found)
        self.rehearsal.facts += [
            f"The backup held {len(dumped)} cases; {erased} of them had been erased since, and were erased again.",
            f"{len(gone)} cases that were kept after the backup are lost; the audit records name each of them.",
        ]
        if not (erased and gone):
            self.rehearsal.faults.append("nothing was erased or kept after the backup: the rehearsal proves too little")
        self._desk.sql("ALTER DATABASE restored RENAME TO cases")
