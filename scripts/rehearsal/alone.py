"""One gateway with SQLite: a backup under traffic, the loss of the file, and the way back."""

from contextlib import ExitStack
from pathlib import Path

from scripts.prove_rollout import replica
from scripts.rehearsal.report import Rehearsal
from scripts.rehearsal.stack import Machine, cases_command
from scripts.rehearsal.traffic import Balancer, Traffic
from serving.models_config import Deployment, write_models_config
from serving.release import read_metadata
from tests import processes


def rehearse(rehearsal: Rehearsal, folder: Path, released: Path) -> None:
    """The gateway has to be stopped for the restoration, so nobody asks meanwhile."""
    metadata = read_metadata(released)
    file = folder / "cases.backup"
    config = folder / "models.config"
    config.write_text("")
    labels = dict.fromkeys(("stable", "canary"), metadata.version)
    write_models_config(config, Deployment(str(released.parent), frozenset({metadata.version}), labels))
    thresholds = {metadata.version: metadata.thresholds.malignant}
    cases = {"GATEWAY_CASES_DATABASE": f"sqlite:///{folder}/cases.db"}

    def command(*arguments: str) -> str:
        return cases_command(*arguments, release=processes.ROOT, settings=cases | {"GATEWAY_AUDIT_FILE": str(machine.audit)})

    def restore() -> None:
        machine.stop()
        for lost in folder.glob("cases.db*"):
            lost.unlink()
        told = command("restore", str(file), "--audit", str(machine.audit))
        rehearsal.facts.append(f"SQLite: {told.splitlines()[0]}.")
        rehearsal.check_record("SQLite, after the restoration", cases, traffic.ledger, moment=backup)
        balancer.set("one", machine.start(processes.ROOT))

    with ExitStack() as stack:
        _, model_port = stack.enter_context(replica(folder / "model-server", config))
        machine = stack.enter_context(Machine("one", folder, model_port, cases))
        command("upgrade")
        balancer = stack.enter_context(Balancer())
        balancer.set("one", machine.start(processes.ROOT))
        with Traffic(balancer, thresholds) as traffic:
            rehearsal.during("SQLite: steady")
            backup = rehearsal.during("SQLite: backup", lambda: command("backup", str(file)))
            rehearsal.during("SQLite: steady after it")
        rehearsal.check_record("SQLite, before the loss", cases, traffic.ledger)
        rehearsal.check_end("SQLite, before the loss", cases, traffic.ledger, set())
        away = rehearsal.during("SQLite: lost and restored", restore)
        with Traffic(balancer, thresholds) as again:
            rehearsal.during("SQLite: steady at last")
        rehearsal.asked += traffic.asked + again.asked
        rehearsal.check_end("SQLite, at the end", cases, again.ledger, set(traffic.ledger))
        machine.stop()
    rehearsal.facts += [
        f"SQLite: from stopping the gateway until it was ready again: {away.end - away.start:.1f} s.",
        f"Audit record of the one machine: {machine.verify_audit()} records, the chain holds.",
    ]
