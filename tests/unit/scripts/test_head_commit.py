import subprocess

import pytest

from tests.processes import head_commit


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("program.py", "docs/speed.md", "docs/figures.py"):
        (tmp_path / name).write_text("first\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message=first")
    return tmp_path


def git(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_a_checkout_as_it_was_committed_has_that_name(checkout):
    assert head_commit(checkout) == git(checkout, "rev-parse", "--short", "HEAD")


@pytest.mark.parametrize("name", ["program.py", "new.py", "docs/figures.py"])
def test_a_page_names_no_commit_that_cannot_print_it(checkout, name):
    (checkout / name).write_text("second\n")

    assert head_commit(checkout) == git(checkout, "rev-parse", "--short", "HEAD") + "-changed"


def test_the_page_that_another_measurement_has_just_written_changes_nothing(checkout):
    (checkout / "docs" / "speed.md").write_text("second\n")

    assert not head_commit(checkout).endswith("-changed")
