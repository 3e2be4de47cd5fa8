"""What `python -m serving` says of a version once it has loaded it."""

import shutil

import pytest

from serving.__main__ import main
from serving.models_config import read_models_config
from tests.processes import ROOT

# Each loads a version in a process of its own.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def released():
    return ROOT / "serving/models/lesion" / str(read_models_config(ROOT / "serving/config/models.config").labels["stable"])


def test_the_released_version_is_what_it_says_on_this_machine(released, capsys):
    """Its answers too, where it brings some."""
    golden = (released / "assets.extra" / "golden.npz").exists()

    assert main(["verify", str(released)]) == 0
    told = "checksums match; it keeps the contract" + golden * " and gives its recorded answers"
    assert capsys.readouterr().out.endswith(told + "\n")


def test_a_candidate_whose_graph_does_not_load_is_not_published(released, tmp_path, capsys):
    candidate = tmp_path / "candidate"
    shutil.copytree(released, candidate)
    (candidate / "assets.extra" / "SHA256SUMS").unlink()
    (candidate / "saved_model.pb").write_bytes((released / "saved_model.pb").read_bytes()[:-1000])

    assert main(["publish", str(candidate), str(tmp_path / "lesion")]) == 1

    assert "cannot be served" in capsys.readouterr().err
    assert not (tmp_path / "lesion").exists()
