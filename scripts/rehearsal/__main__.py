"""`make rehearse`: all of it, under traffic; ends with 1 if anything is lost, wrong or not as it was.

Two gateways behind a balancer, a model server with the released version and a copy of it under the next number, PostgreSQL and
Redis; then one gateway with SQLite. Given the document, its block of figures is written anew.
"""

import sys
import tempfile
from pathlib import Path

from scripts.documents import replace_block
from scripts.rehearsal import alone
from scripts.rehearsal.replicated import Replicated
from scripts.rehearsal.report import Rehearsal
from scripts.rehearsal.stack import DRAIN_S
from serving.contract import STABLE_LABEL
from serving.models_config import read_models_config
from tests import processes


def main(document: Path | None) -> int:
    """Rehearse and report."""
    configured = read_models_config(processes.ROOT / "serving" / "config" / "models.config").labels[STABLE_LABEL]
    released = processes.ROOT / "serving" / "models" / "lesion" / str(configured)
    rehearsal = Rehearsal()
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary, name) for name in ("replicated", "alone")]
        for folder in folders:
            folder.mkdir()
        replicated = Replicated(rehearsal, folders[0], released)
        with replicated.running():
            replicated.go_forward_and_back()
            replicated.lose_the_record()
        alone.rehearse(rehearsal, folders[1], released)
    table = rehearsal.table()
    print(f"\n{table}")
    if rehearsal.faults:
        print("\n".join(["faults:", *rehearsal.faults[:20], f"{len(rehearsal.faults)} in all"]), file=sys.stderr)
        return 1
    if document:
        told = f"At commit {processes.head_commit()}; gateways are drained for {DRAIN_S} s.\n\n{table}"
        replace_block(document, "rehearsal", told)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
