import stat
import sys

import pytest

from training.fetch import FetchError, fetch

# As isic-cli 12 lays a download out; it needs the network, so its place on the PATH is taken.
STAND_IN = """#!{python}
import csv, pathlib, sys
search, limit, out = sys.argv[4], int(sys.argv[6]), pathlib.Path(sys.argv[7])
assert sys.argv[1:4] == ["image", "download", "--search"] and sys.argv[5] == "--limit", sys.argv
kind = "B" if "Benign" in search else "M"
out.mkdir(parents=True)
with (out / "metadata.csv").open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["isic_id", "lesion_id"])
    for index in range(limit):
        writer.writerow([f"ISIC_{{kind}}{{index}}", f"IL_{{kind}}{{index // 2}}" if index % 10 else ""])
        (out / f"ISIC_{{kind}}{{index}}.jpg").write_bytes(b"picture")
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    def install(text):
        program = tmp_path / "bin" / "isic"
        program.parent.mkdir()
        program.write_text(text.format(python=sys.executable))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(program.parent))

    return install


def test_pictures_are_laid_out_by_class_and_split_by_lesion(install, tmp_path):
    install(STAND_IN)

    fetch(tmp_path / "isic", limit=100)

    sides = {(path.parent.parent.name, path.parent.name): set() for path in (tmp_path / "isic").glob("*/*/*.jpg")}
    for path in (tmp_path / "isic").glob("*/*/*.jpg"):
        sides[path.parent.parent.name, path.parent.name].add(path.stem)
    assert {split for split, _ in sides} == {"train", "test"}
    for label, kind in (("benign", "B"), ("malignant", "M")):
        train, test = sides["train", label], sides["test", label]
        assert len(train) + len(test) == 100
        assert 8 <= len(test) <= 40
        lesions = [
            {int(name.removeprefix(f"ISIC_{kind}")) // 2 for name in side if int(name[6:]) % 10} for side in (train, test)
        ]
        assert not lesions[0] & lesions[1]


def test_a_missing_command_is_named_with_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(FetchError, match=r"requirements/isic.txt"):
        fetch(tmp_path / "isic", limit=1)


def test_a_failed_download_is_said(install, tmp_path):
    install("#!{python}\nraise SystemExit(1)\n")

    with pytest.raises(FetchError, match="failed"):
        fetch(tmp_path / "isic", limit=1)
