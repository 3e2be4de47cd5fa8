import os
import subprocess
import sys

import pytest

from tests.processes import ROOT

GENERATED = sorted(path.relative_to(ROOT) for package in ("serving", "gateway") for path in (ROOT / package).rglob("*_pb2.py*"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    out = tmp_path_factory.mktemp("wire")
    subprocess.run(
        ["scripts/wire.sh", out],
        cwd=ROOT,
        env=os.environ | {"VENV_TEST": sys.prefix},
        stdin=subprocess.DEVNULL,
        check=True,
        capture_output=True,
    )
    return out


@pytest.mark.parametrize("path", [path for path in GENERATED if path.suffix in (".py", ".pyi")], ids=str)
def test_committed_code_is_what_its_proto_file_gives(fresh, path):
    assert (ROOT / path).read_text() == (fresh / path).read_text(), "run make wire"


def test_every_proto_file_is_generated_from(fresh):
    protos = {path.relative_to(ROOT).with_suffix("") for path in (ROOT / "serving").rglob("*.proto")}

    assert protos == {path.relative_to(fresh).with_name(path.name.replace("_pb2.py", "")) for path in fresh.rglob("*_pb2.py")}
