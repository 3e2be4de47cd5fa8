import hashlib
import io
import json
import os
import random
import subprocess
import sys

import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from loadtests import corpus, hostile, metadata, pictures
from loadtests.corpus import Corpus, CorpusError, Entry
from loadtests.exchange import Connection, form
from loadtests.judge import Judge
from loadtests.painting import paint
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


PATIENT = b"SMITH 1950"


def taken(orientation):
    """EXIF as a telephone writes it."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, PATIENT.decode()
    exif.get_ifd(0x8825)[1] = "S"
    return exif.tobytes()


def encoded(format_name, orientation, **options):
    buffer = io.BytesIO()
    paint("real", (120, 80)).save(buffer, format_name, exif=taken(orientation), **options)
    return buffer.getvalue()


def jpeg_with_more():
    """XMP, IPTC, a comment, a small picture in the header; and a second picture behind the end."""
    data = encoded("JPEG", 6, progressive=True, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    more = [(0xE0, b"JFXX\0\x13"), (0xE1, b"http://ns.adobe.com/xap/1.0/\0"), (0xED, b"Photoshop 3.0\0"), (0xFE, b"")]
    segments = b"".join(metadata._segment(marker, start + PATIENT) for marker, start in more)
    jfif = metadata._segment(0xE0, b"JFIF\0\x01\x02\0\0\x01\0\x01\x01\x01" + b"abc")
    assert data[2:4] == b"\xff\xe0"
    return data[:2] + jfif + segments + data[20:] + encoded("JPEG", 1)


def png_with_more():
    info = PngImagePlugin.PngInfo()
    info.add_text("Patient", PATIENT.decode())
    info.add_itxt("XML:com.adobe.xmp", PATIENT.decode())
    return encoded("PNG", 8, pnginfo=info)


def webp_with_more():
    return encoded("WEBP", 3, lossless=True, xmp=PATIENT)


def seen(data):
    """How the picture is shown."""
    with Image.open(io.BytesIO(data)) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB").tobytes()


@pytest.mark.parametrize("data", [jpeg_with_more(), encoded("JPEG", 1), png_with_more(), webp_with_more(), encoded("WEBP", 1)])
def test_what_is_told_beside_a_picture_is_taken_out_and_the_picture_stays(data):
    bare = metadata.strip(data)

    assert PATIENT in data
    assert PATIENT not in bare
    assert seen(bare) == seen(data)
    with Image.open(io.BytesIO(bare)) as opened, Image.open(io.BytesIO(data)) as before:
        turned = before.getexif()[0x0112]
        assert dict(opened.getexif()) == ({} if turned == 1 else {0x0112: turned})
        assert not {"xmp", "comment", "photoshop", "jfif_thumbnail"} & opened.info.keys()
        assert opened.info.get("icc_profile") == before.info.get("icc_profile")
    assert b"abc" not in bare[:40]


def test_a_picture_that_cannot_be_freed_of_what_it_tells_is_left_out(tmp_path):
    for name, format_name in (("a.tif", "TIFF"), ("b.heic", "HEIF"), ("c.avif", "AVIF")):
        (tmp_path / name).write_bytes(encoded(format_name, 1))
        # What it is, not what it is called.
        (tmp_path / f"{name}.jpg").write_bytes(encoded(format_name, 1))
    (tmp_path / "cut.jpg").write_bytes(encoded("JPEG", 1)[:-200])
    (tmp_path / "cut.png").write_bytes(encoded("PNG", 1)[:-20])
    Image.new("RGB", (100, 80)).save(tmp_path / "d.bmp")
    (tmp_path / "d.bmp").write_bytes((tmp_path / "d.bmp").read_bytes() + PATIENT)

    (entry,) = corpus._real(tmp_path)

    assert (entry.format, entry.pixels) == ("bmp", 8000)
    assert PATIENT not in entry.data


@pytest.fixture
def painted_little(monkeypatch):
    """A corpus is painted in no time."""
    monkeypatch.setattr(pictures, "recipes", lambda: RECIPES[:1])
    monkeypatch.setattr(hostile, "recipes", lambda: RECIPES[-1:])


def real_folder(folder, count):
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(encoded("JPEG", 1))
    return folder


def test_real_pictures_of_an_earlier_corpus_do_not_stay(painted_little, tmp_path):
    made = tmp_path / "corpus"
    corpus.write(made, real_folder(tmp_path / "two", 2))
    assert made.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in made.iterdir()} == {0o600}
    assert len(list(made.glob("real-*"))) == 2
    # As an older program left it.
    (made / "real-00009.jpg").touch()
    made.chmod(0o755)

    corpus.write(made, real_folder(tmp_path / "one", 1))
    assert [path.name for path in made.glob("real-*")] == ["real-00001.jpg"]
    assert made.stat().st_mode & 0o777 == 0o700
    (made / corpus.MANIFEST).rename(made / corpus._UNFINISHED)
    corpus.write(made)

    assert {path.name for path in made.iterdir()} == {RECIPES[0].name, RECIPES[-1].name, corpus.MANIFEST}


def test_nothing_of_anybody_else_is_removed_and_nothing_real_comes_among_it(painted_little, tmp_path):
    real, made = real_folder(tmp_path / "real", 1), tmp_path / "corpus"
    made.mkdir(mode=0o755)
    (made / "real-00001.jpg").write_text("mine")

    with pytest.raises(CorpusError, match="holds other files"):
        corpus.write(made, real)
    for folder in (real, real / "deeper", tmp_path):
        with pytest.raises(CorpusError, match="hold one another"):
            corpus.write(folder, real)

    assert (made / "real-00001.jpg").read_text() == "mine"
    assert made.stat().st_mode & 0o777 == 0o755
    assert len(list(real.iterdir())) == 1


STUB = """#!/bin/sh
echo "$@" >>"$CALLS"
case $2 in loadtests.corpus) mkdir -p "$3" && echo "{}" >"$3/manifest.json" ;; esac
"""


def test_make_load_sends_real_pictures_only_when_it_is_told_to(tmp_path):
    """The script, with a Python that notes what it is asked for."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(STUB)
    (tmp_path / "bin" / "python").chmod(0o755)
    calls, run = tmp_path / "calls", tmp_path / "run"

    def load(**variables):
        calls.unlink(missing_ok=True)
        unset = {name: value for name, value in os.environ.items() if name not in ("REAL", "LOAD_CORPUS")}
        given = {"HOST": "http://x", "RUN_DIR": str(run), "VENV_LOAD": str(tmp_path), "CALLS": str(calls)} | variables
        subprocess.run([ROOT / "scripts" / "load.sh"], env=unset | given, check=True, capture_output=True, timeout=30)
        *made, locust = calls.read_text().splitlines()
        return made, locust.partition("--corpus ")[2].split()[0]

    plain, real = f"{run}/corpus", f"{run}/corpus-real"
    assert load() == ([f"-m loadtests.corpus {plain}"], plain)
    assert load() == ([], plain)
    for folder in ("one", "two"):
        assert load(REAL=folder) == ([f"-m loadtests.corpus {real} --real {folder}"], real)
    assert load() == ([], plain)
    # What an older script has left there.
    (run / "corpus" / "manifest.json").write_text('{"files": [{"kind": "real"}]}')
    assert load() == ([f"-m loadtests.corpus {plain}"], plain)


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
