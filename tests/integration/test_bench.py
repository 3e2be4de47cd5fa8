"""`python -m scripts.bench` with the one contestant that takes no environment of its own but TensorFlow: the paper's way."""

import json
import subprocess
import sys

from scripts.bench.tolerance import MALIGNANT_TOLERANCE
from tests.processes import ROOT

NAME = "Keras in Flask"


def test_the_paper_s_way_answers_what_the_released_version_does(tmp_path):
    (tmp_path / "benchmarks.md").write_text("<!-- benchmark -->\n<!-- /benchmark -->\n")
    command = [sys.executable, "-m", "scripts.bench", f"--docs={tmp_path}", f"--state={tmp_path / 'state'}", f"--only={NAME}"]

    run = subprocess.run(
        [*command, "--rounds=1", "--seconds=0.1", "--callers=1", "--callers=3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "not written, not yet visited: Dermserve, " in run.stdout
    (visit,) = json.loads((tmp_path / "state" / "visits.json").read_text())["visits"]
    assert visit["fault"] is None
    assert visit["contestant"] == NAME
    # Float32 is not bfloat16: an answer that is the very same would be a comparison of a thing with itself.
    assert 0 < visit["malignant_off"] <= MALIGNANT_TOLERANCE
    assert [one["callers"] for one in visit["measured"]] == [1, 3]
    assert all(len(one["milliseconds"]) >= one["callers"] for one in visit["measured"])
    assert visit["memory_mb"] > 200
    assert "benchmark -->" in (tmp_path / "benchmarks.md").read_text()
