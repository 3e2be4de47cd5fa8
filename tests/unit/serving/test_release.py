import shutil

import pytest

from serving.__main__ import main
from serving.release import ReleaseError, install, prune, publish, verify_sums
from tests.metadata import METADATA


@pytest.fixture
def candidate(tmp_path):
    folder = tmp_path / "candidate"
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "variables").mkdir()
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"index")
    (folder / "assets.extra" / "metadata.json").write_text(METADATA.to_json())
    return folder


def test_a_version_gets_the_number_its_metadata_name(candidate, tmp_path):
    published = publish(candidate, tmp_path / "lesion")

    assert published == tmp_path / "lesion" / "1"
    assert (published / "variables" / "variables.index").read_bytes() == b"index"
    assert [path.name for path in published.parent.iterdir()] == ["1"]
    verify_sums(published)


@pytest.mark.parametrize("missing", ["saved_model.pb", "assets.extra/metadata.json"])
def test_half_a_version_is_refused_and_nothing_is_left(candidate, tmp_path, missing):
    (candidate / missing).unlink()

    with pytest.raises(ReleaseError):
        publish(candidate, tmp_path / "lesion")
    assert not (tmp_path / "lesion").exists() or not list((tmp_path / "lesion").iterdir())


def test_a_number_that_is_taken_stays_as_it_is(candidate, tmp_path):
    publish(candidate, tmp_path / "lesion")
    (candidate / "saved_model.pb").write_bytes(b"another graph")

    with pytest.raises(ReleaseError, match="never overwritten"):
        publish(candidate, tmp_path / "lesion")
    assert (tmp_path / "lesion" / "1" / "saved_model.pb").read_bytes() == b"graph"


@pytest.mark.parametrize("change", ["changed", "missing", "added"])
def test_a_version_that_was_tampered_with_is_named(candidate, tmp_path, change, capsys):
    published = publish(candidate, tmp_path / "lesion")
    target = published / ("new" if change == "added" else "saved_model.pb")
    target.unlink() if change == "missing" else target.write_bytes(b"other")

    with pytest.raises(ReleaseError, match=target.name):
        verify_sums(published)
    assert main(["verify", str(published)]) == 1
    assert target.name in capsys.readouterr().err


def test_the_commands_publish_and_verify(candidate, tmp_path, capsys):
    assert main(["publish", "--files-only", str(candidate), str(tmp_path / "lesion")]) == 0
    assert main(["verify", "--files-only", str(tmp_path / "lesion" / "1")]) == 0
    assert "checksums match" in capsys.readouterr().out
    assert main(["publish", "--files-only", str(candidate), str(tmp_path / "lesion")]) == 1
    assert "never overwritten" in capsys.readouterr().err


def test_a_copy_that_differs_is_not_published(candidate, tmp_path, monkeypatch):
    copy = shutil.copytree

    def damage(source, target, *options, **more):
        copy(source, target, *options, **more)
        if source == candidate:
            (target / "saved_model.pb").write_bytes(b"grapj")

    monkeypatch.setattr("shutil.copytree", damage)

    with pytest.raises(ReleaseError, match=r"saved_model\.pb"):
        publish(candidate, tmp_path / "lesion")
    assert not list((tmp_path / "lesion").iterdir())


def test_a_candidate_that_changed_since_its_checksums_were_taken_is_refused(candidate, tmp_path):
    published = publish(candidate, tmp_path / "lesion")
    (published / "saved_model.pb").write_bytes(b"another graph")

    with pytest.raises(ReleaseError, match=r"saved_model\.pb"):
        publish(published, tmp_path / "elsewhere")


def test_checksums_that_are_no_text_are_told(candidate, tmp_path, capsys):
    published = publish(candidate, tmp_path / "lesion")
    (published / "assets.extra" / "SHA256SUMS").write_bytes(b"\xff")

    assert main(["verify", str(published)]) == 1
    assert "SHA256SUMS" in capsys.readouterr().err


def test_what_is_filled_in_is_checked_before_it_gets_its_number(candidate, tmp_path):
    published = publish(candidate, tmp_path / "lesion")

    with pytest.raises(ReleaseError, match="holds version 1"):
        install(tmp_path / "elsewhere", 2, lambda partial: shutil.copytree(published, partial, dirs_exist_ok=True))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_version_under_another_number_is_told(candidate, tmp_path, capsys):
    published = publish(candidate, tmp_path / "lesion")
    moved = published.rename(published.with_name("7"))

    assert main(["verify", str(moved)]) == 1
    assert "holds version 1" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_told(candidate, tmp_path):
    (tmp_path / "lesion").write_text("a file")

    with pytest.raises(ReleaseError, match="cannot be written"):
        publish(candidate, tmp_path / "lesion")


def test_an_empty_graph_is_refused(candidate, tmp_path):
    (candidate / "saved_model.pb").write_bytes(b"")

    with pytest.raises(ReleaseError, match="no saved_model"):
        publish(candidate, tmp_path / "lesion")


def test_an_interrupted_copy_leaves_no_numbered_folder(candidate, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)

    with pytest.raises(KeyboardInterrupt):
        publish(candidate, tmp_path / "lesion")
    assert not list((tmp_path / "lesion").iterdir())


def test_old_versions_are_deleted_but_for_those_in_use_and_the_newest(tmp_path):
    for number in (1, 2, 3, 4, 5):
        (tmp_path / str(number)).mkdir()
    (tmp_path / "partial-6").mkdir()

    assert prune(tmp_path, used={2, 5}, keep=1) == [1, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4", "5", "partial-6"]
    assert prune(tmp_path, used={2, 5}, keep=1) == []
    with pytest.raises(ReleaseError, match="nowhere"):
        prune(tmp_path / "nowhere", used=set(), keep=1)
