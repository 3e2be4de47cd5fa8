import hashlib
import json
import random
import subprocess
import sys

import pytest
from PIL import Image

from loadtests import corpus, hostile, pictures
from loadtests.corpus import Corpus, CorpusError, Entry
from loadtests.exchange import Connection, form
from loadtests.judge import Judge
from tests.processes import ROOT

RECIPES = [*pictures.recipes(), *hostile.recipes()]
COMMAND = [sys.executable, "-m", "loadtests.corpus"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus without its largest pictures."""
    made = tmp_path_factory.mktemp("corpus")
    corpus.write(made, max_megapixels=0.5)
    return made


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_real_gateway_answers_every_file_as_the_manifest_says(stack, recipe):
    address, _ = stack
    entry = corpus._entry(recipe.name, recipe.kind, recipe.make(), recipe.pixels, (recipe.status, recipe.problem))
    content_type, body = form([entry.data])
    connection = Connection(address)

    answer = connection.send("POST", "/api/v1/classifications", {"Content-Type": content_type}, body)
    connection.close()

    verdict = Judge().classification(answer, entry)
    assert answer.status == recipe.status, answer.body
    assert verdict.outcome == ("rejected" if recipe.problem else "accepted"), verdict


def test_every_format_size_and_problem_is_there():
    formats = {recipe.name.rpartition(".")[2] for recipe in pictures.recipes()}
    megapixels = {round(recipe.pixels / 1e6) for recipe in pictures.recipes()}
    problems = {recipe.problem for recipe in hostile.recipes()}

    assert formats == {"jpg", "png", "webp", "tif", "bmp", "heic", "avif", "dcm"}
    assert {0, 12, 48} <= megapixels
    assert {"text-bomb.png", "scan-bomb.jpg", "claims-10-gigapixels.png", "archive-behind.jpg", "page-before.dcm"} <= {
        recipe.name for recipe in hostile.recipes()
    }
    # Those of the section "Refused" in docs/pictures.md.
    section = (ROOT / "docs" / "pictures.md").read_text().partition("## Refused")[2].partition("\n## ")[0]
    assert problems == {line.split("`")[1] for line in section.splitlines() if line.startswith("| `")}


def test_names_are_given_once():
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)


def test_another_process_makes_the_same_bytes(folder, tmp_path):
    subprocess.run([*COMMAND, tmp_path, "--max-megapixels", "0.5"], cwd=ROOT, check=True, capture_output=True, timeout=120)

    assert (tmp_path / corpus.MANIFEST).read_text() == (folder / corpus.MANIFEST).read_text()
    assert {path.name: digest(path) for path in tmp_path.iterdir()} == {path.name: digest(path) for path in folder.iterdir()}


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_manifest_tells_digest_format_size_and_outcome(folder):
    documents = {document["name"]: document for document in json.loads((folder / corpus.MANIFEST).read_text())["files"]}

    assert documents["truncated.png"]["problem"] == "broken-picture"
    assert documents["truncated.png"]["status"] == 422
    usual = documents["jpeg-600x450.jpg"]
    assert (usual["format"], usual["pixels"], usual["status"], usual["problem"]) == ("jpg", 270_000, 200, None)
    assert usual["size"] == (folder / "jpeg-600x450.jpg").stat().st_size
    assert usual["sha256"] == digest(folder / "jpeg-600x450.jpg")


def test_real_pictures_are_mixed_in_without_their_names(tmp_path):
    real = tmp_path / "real" / "deeper"
    real.mkdir(parents=True)
    Image.new("RGB", (100, 80)).save(real / "patient-smith.jpg")
    Image.new("RGB", (30, 30)).save(real / "too-small.png")
    (real / "letter.jpg").write_text("no picture")
    (real / "notes.txt").write_text("no picture either")

    entries = list(corpus._real(tmp_path / "real"))

    assert [(entry.name, entry.kind, entry.status) for entry in entries] == [("real-00002.jpg", "real", 200)]


def test_a_corpus_that_has_changed_is_not_used(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "bmp.bmp").write_bytes(b"other")

    with pytest.raises(CorpusError, match=r"bmp\.bmp"):
        corpus.read(tmp_path)


def test_no_corpus_says_how_to_make_one(tmp_path):
    with pytest.raises(CorpusError, match=r"python -m loadtests\.corpus"):
        corpus.read(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", '{"files": [{"name": "bmp.bmp", "bytes": 1}]}'])
def test_a_manifest_that_is_none_is_not_used(folder, tmp_path, text):
    (tmp_path / "bmp.bmp").write_bytes(b"")
    (tmp_path / corpus.MANIFEST).write_text(text)

    with pytest.raises(CorpusError, match="another version"):
        corpus.read(tmp_path)


def test_every_file_has_its_turn(folder):
    read, chance = corpus.read(folder), random.Random(1)

    drawn = {read.picture(chance).name for _ in range(5000)} | {read.hostile(chance).name for _ in range(500)}

    assert drawn == {entry.name for entry in read.entries}
    everyday = sum(read.picture(chance).kind == "everyday" for _ in range(1000))
    assert 850 < everyday < 960


def test_a_corpus_without_hostile_files_is_none():
    with pytest.raises(CorpusError):
        Corpus([Entry("a.jpg", "everyday", "jpg", 1, 1, "0")])
