import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.k8s import rendering
from tests.processes import ROOT

CHECKOV = Path(os.environ.get("VENV_CHECKOV", ROOT / ".venvs" / "checkov")) / "bin" / "checkov"
WAIVERS = yaml.safe_load((ROOT / "tests" / "k8s" / "waivers.yaml").read_text())


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Of the production overlay, and of everything together in both ways; one run, for most of it is starting."""
    folder = tmp_path_factory.mktemp("rendered")
    (folder / "production.yaml").write_text(rendering.text_of_overlay("production"))
    for number, chosen in enumerate(rendering.everything()):
        (folder / f"everything-{number}.yaml").write_text(rendering.text_of(chosen))
    scan = subprocess.run(
        [CHECKOV, "--directory", folder, "--framework", "kubernetes", "--skip-download", "--quiet", "--output", "json"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    return json.loads(scan.stdout)


def test_what_is_scanned_is_all_of_it(report):
    summary = report["summary"]

    assert summary["resource_count"] > 5 * 15
    assert summary["passed"] > 1000
    assert summary["parsing_errors"] == 0


def test_every_policy_is_kept_or_has_its_waiver(report):
    broken = {(one["check_id"], one["check_name"]) for one in report["results"]["failed_checks"]}

    assert {policy for policy in broken if policy[0] not in WAIVERS} == set()
    assert {number for number, _ in broken} == set(WAIVERS)
