import os
import subprocess
import sys

from tests.processes import ROOT


def test_every_linter_is_content():
    """ruff, mypy, the import contracts, shellcheck: what `make lint` runs."""
    linted = subprocess.run(
        ["scripts/lint.sh"],
        cwd=ROOT,
        env=os.environ | {"VENV_TEST": sys.prefix},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert linted.returncode == 0, linted.stdout + linted.stderr
