import stat
import sys
from collections import Counter, defaultdict

import pytest

from training.data import load_examples
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


def test_pictures_are_listed_with_a_split_for_each_lesion(install, tmp_path, capsys):
    install(STAND_IN)

    examples = load_examples(fetch(tmp_path / "isic", limit=200))

    assert all(example.path.is_file() for example in examples)
    assert Counter(example.label for example in examples) == {"benign": 200, "malignant": 200}
    shares = Counter(example.split for example in examples)
    assert 40 <= shares["test"] <= 120
    assert 30 <= shares["val"] <= 100
    splits = defaultdict(set)
    for example in examples:
        splits[example.group].add(example.split)
    assert len(splits) < 300
    assert all(len(found) == 1 for found in splits.values())
    assert "40 pictures are of lesions unknown" in capsys.readouterr().out


def test_a_missing_command_is_named_with_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(FetchError, match=r"requirements/isic.txt"):
        fetch(tmp_path / "isic", limit=1)


def test_a_failed_download_is_said(install, tmp_path):
    install("#!{python}\nraise SystemExit(1)\n")

    with pytest.raises(FetchError, match="failed"):
        fetch(tmp_path / "isic", limit=1)
