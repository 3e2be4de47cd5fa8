"""Every command of docs/api.md, run against a gateway."""

import re
import shlex
import subprocess

import pytest

from tests import doors, processes
from tests.pictures import encode, paint, textured
from tests.processes import ROOT

TEXT = (ROOT / "docs" / "api.md").read_text()
COMMANDS = re.findall(r"```sh\n# answers (\d+)\n(curl .+)\n```", TEXT)
PROGRAMS = re.findall(r"```python\n(.+?)```", TEXT, re.DOTALL)
WRITTEN_FOR = "http://127.0.0.1:8000"
KEY = doors.header()["Authorization"]


@pytest.fixture(scope="module")
def address(tiny_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    keys = {"GATEWAY_IDENTITY": "keys", "GATEWAY_API_KEYS_FILE": str(doors.write_keys(folder / "keys.json", portal="classify"))}
    with (
        processes.redis_server(folder) as (_, port),
        processes.gateway(tiny_server[0], folder, GATEWAY_REDIS_URL=f"redis://127.0.0.1:{port}/0", **keys) as (_, address),
    ):
        yield address


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "picture.jpg").write_bytes(encode(textured(), "JPEG"))
    (tmp_path / "other.jpg").write_bytes(paint("malignant", format="JPEG"))
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_every_block_is_one_that_is_run():
    assert len(COMMANDS) == TEXT.count("```sh\n") >= 8
    assert len(PROGRAMS) == TEXT.count("```python\n") == 1


@pytest.mark.parametrize(("status", "command"), COMMANDS)
def test_a_command_answers_what_stands_over_it(address, folder, status, command):
    filled = command.replace(WRITTEN_FOR, address).replace("$AUTH", f"Authorization: {KEY}")
    words = [*shlex.split(filled), "--silent", "--show-error", "--write-out", "\\n%{http_code}"]

    run = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True, timeout=60)

    assert run.stdout.splitlines()[-1] == status, run.stdout


def test_the_program_runs(address, capsys):
    exec(PROGRAMS[0].replace(WRITTEN_FOR, address), {"picture": paint("malignant"), "api_key": KEY.removeprefix("Bearer ")})  # noqa: S102  (our own document)

    label, first, second, problem = capsys.readouterr().out.splitlines()
    assert label.startswith("malignant 0.7")
    assert (first, second, problem) == ("malignant", "not-a-picture", "415 not-a-picture")
