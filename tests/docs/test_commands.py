import importlib.util
import re
import subprocess

import pytest

from tests.processes import ROOT

TEXTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "scripts").glob("*.sh"), ROOT / ".ci" / "run"]
TARGET = re.compile(r"^([a-z-]+):(?!=)", re.MULTILINE)
MADE = re.compile(r"(?:^|[`(])make ([a-z-]+)\b", re.MULTILINE)
MODULE = re.compile(
    r"python -m ((?:training|serving|gateway|tests|loadtests)[\w.]*)"
    r"(?: (fetch|train|calibrate|export|evaluate|report|publish|verify|prune|status|canary|promote|rollback"
    r"|upgrade|downgrade|revision|purge|backup|restore|erase-again))?"
)


def mentions(pattern):
    return sorted({match for text in TEXTS for match in pattern.findall(text.read_text())})


def test_every_make_command_that_is_mentioned_is_a_target():
    mentioned = set(mentions(MADE))

    assert {"up", "down", "test"} <= mentioned
    assert mentioned <= set(TARGET.findall((ROOT / "Makefile").read_text()))


def test_help_lists_every_target():
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout

    assert re.findall(r"^make ([a-z-]+)", listed, re.MULTILINE) == TARGET.findall((ROOT / "Makefile").read_text())


@pytest.mark.parametrize("target", TARGET.findall((ROOT / "Makefile").read_text()))
def test_every_target_has_a_script_that_can_be_run(target):
    recipe = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout

    script = ROOT / recipe.split()[0]
    assert target == "help" or (script.suffix == ".sh" and script.stat().st_mode & 0o111)


@pytest.mark.parametrize(("module", "command"), mentions(MODULE))
def test_every_module_that_is_mentioned_can_be_found(module, command):
    spec = importlib.util.find_spec(module)

    assert spec is not None
    assert not command or f'"{command}"' in (ROOT / module.replace(".", "/") / "__main__.py").read_text()


def test_continuous_integration_runs_the_test_command_of_the_readme():
    assert "```\nmake test\n```" in (ROOT / "README.md").read_text()
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "exec make test"
