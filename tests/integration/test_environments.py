"""scripts/environments.sh over locks without packages, in a copy of the checkout's scripts."""

import os
import shutil
import subprocess

import pytest

from tests.processes import ROOT


@pytest.fixture
def ensure(tmp_path):
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "gateway.txt").write_text("# nothing\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VENV_")}

    def run(**variables):
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "source scripts/environments.sh; ensure_environment gateway; python_of gateway"],
            cwd=tmp_path,
            env=environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_an_environment_is_made_once_for_each_lock(ensure, tmp_path):
    first = ensure()
    assert first.returncode == 0, first.stderr
    assert "Installing requirements/gateway.txt" in first.stdout
    python = tmp_path / ".venvs" / "gateway" / "bin" / "python"
    assert first.stdout.splitlines()[-1] == str(python)
    subprocess.run([python, "-c", "import pip"], check=True)

    assert "Installing" not in ensure().stdout

    (tmp_path / "requirements" / "gateway.txt").write_text("# another nothing\n")
    assert "Installing" in ensure().stdout
    assert "Installing" not in ensure().stdout


def test_a_half_made_environment_is_made_anew(ensure, tmp_path):
    (tmp_path / "requirements" / "gateway.txt").write_text("no-hash==1.0\n")
    assert ensure().returncode != 0

    (tmp_path / "requirements" / "gateway.txt").write_text("# nothing\n")
    mended = ensure()

    assert mended.returncode == 0
    assert "Installing" in mended.stdout


def test_a_named_environment_is_used_as_it_is(ensure, tmp_path):
    missing = ensure(VENV_GATEWAY=str(tmp_path / "nowhere"))

    assert missing.returncode != 0
    assert "VENV_GATEWAY" in missing.stderr
    assert not (tmp_path / ".venvs").exists()
