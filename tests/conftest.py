import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import processes

DATA = Path(os.environ.get("DERMSERVE_DATA", processes.ROOT.parent / "shared" / "data"))

LONG = ("containers", "integration/training")
"""Folders with files that take minutes each."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Long files come first, so that the workers end together; by turns, so that they seldom wait for the same build."""
    files = list(dict.fromkeys(item.path for item in items))
    long = [[path for path in files if path.is_relative_to(Path(__file__).parent / folder)] for folder in LONG]
    first = [path for turn in itertools.zip_longest(*long) for path in turn if path]
    places = {path: place for place, path in enumerate(first)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def make_version():
    """Write a version of the tiny model; a process of its own keeps TensorFlow out of this one."""

    def make(base: Path, version: int, *threshold: str) -> Path:
        base.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "tests.tiny_model", base, str(version), *threshold],
            check=True,
            cwd=processes.ROOT,
            capture_output=True,
        )
        return base / str(version)

    return make


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory, make_version):
    """A folder of versions with version 1 of the tiny model. Nobody changes it."""
    base = tmp_path_factory.mktemp("models") / "lesion"
    make_version(base, 1)
    return base


@pytest.fixture(scope="session")
def tiny_server(tiny_base, tmp_path_factory):
    """gRPC port and REST port of a model server over `tiny_base`."""
    with processes.model_server(tiny_base, tmp_path_factory.mktemp("server")) as (_, port, rest_port):
        yield port, rest_port


@pytest.fixture(scope="session")
def stack(tiny_server, tmp_path_factory):
    """Address of a gateway over the tiny model, and its program."""
    with processes.gateway(tiny_server[0], tmp_path_factory.mktemp("gateway")) as (program, address):
        yield address, program
