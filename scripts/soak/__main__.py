"""`python -m scripts.soak MINUTES [DOCS]`: traffic at 70 % of the capacity while one thing after another breaks.

Ends with 1 when a request is lost, an answer is wrong, memory grows, or a fault leaves more behind than it may. Given DOCS, it
writes the figures of DOCS/soak.md and DOCS/figures/soak.json. Run by `make soak`.
"""

import signal
import sys
import tempfile
from pathlib import Path

from scripts.soak.course import Course, Pace
from scripts.soak.disk import small_disk
from scripts.soak.faults import FAULTS
from scripts.soak.page import report
from scripts.soak.stack import Stack
from serving.contract import STABLE_LABEL
from serving.models_config import read_models_config
from tests import processes


def main(minutes: float, docs: Path | None) -> int:
    """Run it."""
    configured = read_models_config(processes.ROOT / "serving" / "config" / "models.config").labels[STABLE_LABEL]
    released = processes.ROOT / "serving" / "models" / "lesion" / str(configured)
    with (
        tempfile.TemporaryDirectory() as temporary,
        small_disk(Path(temporary, "disk")) as disk,
        Stack(Path(temporary), disk, released) as stack,
    ):
        soak = Course(stack, Pace.over(minutes), FAULTS).run()
    return report(soak, docs)


if __name__ == "__main__":
    # A stop is an interrupt: nothing stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(float(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))  # noqa: PLR2004
