"""`python -m loadtests.corpus FOLDER`: the files that are sent, the same each time, and a manifest of what each must get."""

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image

from loadtests import hostile, metadata, pictures
from loadtests.recipe import OK, Kind

MANIFEST = "manifest.json"
_UNFINISHED = "manifest.json.partial"

SHARES: dict[Kind, float] = {"everyday": 10, "real": 10, "rare": 1}
"""How often a picture is of that kind, as far as the corpus has any."""

_REAL_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
"""Of files whose metadata can be taken out."""

_REAL_NAME = re.compile(r"real-\d{5}\.[a-z]+")
_MIN_EDGE = 64
_MAX_PIXELS = 25_000_000
_MAX_BYTES = 20_000_000


class CorpusError(Exception):
    """There is no corpus, or another one than its manifest says."""


@dataclass(frozen=True)
class Entry:
    """A file, and what must become of it.

    Attributes:
        name: in the corpus's folder.
        kind: how often it is sent.
        format: what its name ends with; a hostile one is another format, or none.
        size, pixels: bytes, and width times height; 0 pixels where it is no picture.
        sha256: of its bytes.
        status, problem: of the answer it must get.
        data: its bytes; not in the manifest.
    """

    name: str
    kind: Kind
    format: str
    size: int
    pixels: int
    sha256: str
    status: int = OK
    problem: str | None = None
    data: bytes = field(default=b"", repr=False)


class Corpus:
    """Entries, and a choice among them."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self._by_kind: dict[Kind, list[Entry]] = {}
        for entry in entries:
            self._by_kind.setdefault(entry.kind, []).append(entry)
        self._kinds: list[Kind] = [kind for kind in SHARES if kind in self._by_kind]
        if not self._kinds or "hostile" not in self._by_kind:
            raise CorpusError("the corpus has no pictures, or no hostile files")

    def picture(self, chance: random.Random) -> Entry:
        """One that must be classified."""
        (kind,) = chance.choices(self._kinds, [SHARES[kind] for kind in self._kinds])
        return chance.choice(self._by_kind[kind])

    def hostile(self, chance: random.Random) -> Entry:
        """One that must be refused."""
        return chance.choice(self._by_kind["hostile"])


def read(folder: Path) -> Corpus:
    """A corpus with all its bytes, each file compared with its digest.

    Raises:
        CorpusError: it is not there, or not whole.
    """
    try:
        documents = json.loads((folder / MANIFEST).read_text())["files"]
        entries = [Entry(**document, data=(folder / document["name"]).read_bytes()) for document in documents]
    except FileNotFoundError as error:
        raise CorpusError(f"no corpus in {folder}: make one with `python -m loadtests.corpus {folder}`") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{folder}/{MANIFEST} is of another version; make it anew") from error
    changed = [entry.name for entry in entries if hashlib.sha256(entry.data).hexdigest() != entry.sha256]
    if changed:
        raise CorpusError(f"changed since the corpus was made: {', '.join(changed)}")
    return Corpus(entries)


def write(folder: Path, real: Path | None = None, max_megapixels: float = float("inf")) -> list[Entry]:
    """Make the files, for their owner alone, and name the manifest last. A corpus that was there before is removed.

    Args:
        folder: to write into.
        real: folder with pictures to mix in; None for none.
        max_megapixels: larger pictures that must be classified are left out.

    Raises:
        CorpusError: real pictures would come among other files, or their own.
    """
    if real and (folder.resolve().is_relative_to(real.resolve()) or real.resolve().is_relative_to(folder.resolve())):
        raise CorpusError(f"{folder} and {real} hold one another")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_corpus(folder)
    if real:
        if any(folder.iterdir()):
            raise CorpusError(f"{folder} holds other files: real pictures need a folder of their own")
        folder.chmod(0o700)
    entries = [*_painted(max_megapixels), *(_real(real) if real else [])]
    documents = [{key: value for key, value in asdict(entry).items() if key != "data"} for entry in entries]
    # What an interrupted run has written is known by it, so that the next one removes it.
    _write_private(folder / _UNFINISHED, (json.dumps({"files": documents}, indent=1) + "\n").encode())
    for entry in entries:
        _write_private(folder / entry.name, entry.data)
    (folder / _UNFINISHED).rename(folder / MANIFEST)
    return entries


def _remove_corpus(folder: Path) -> None:
    manifests = [path for path in (folder / MANIFEST, folder / _UNFINISHED) if path.exists()]
    # Of one that cannot be read, or was written over what an older one had left, at least nothing real stays.
    names = {path.name for path in folder.iterdir() if manifests and _REAL_NAME.fullmatch(path.name)}
    for manifest in manifests:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            names |= {Path(document["name"]).name for document in json.loads(manifest.read_text())["files"]} - {""}
    for path in (*(folder / name for name in names), *manifests):
        path.unlink(missing_ok=True)


def _write_private(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def _painted(max_megapixels: float) -> Iterator[Entry]:
    for recipe in (*pictures.recipes(), *hostile.recipes()):
        if recipe.pixels <= max_megapixels * 1e6:
            yield _entry(recipe.name, recipe.kind, recipe.make(), recipe.pixels, (recipe.status, recipe.problem))


def _real(folder: Path) -> Iterator[Entry]:
    """Pictures of the folder that are within the gateway's limits; without names and metadata, which may tell who it is."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _REAL_SUFFIXES)
    for number, path in enumerate(found, 1):
        try:
            data = metadata.strip(path.read_bytes())
            with Image.open(path) as opened:
                size = opened.size
        except (OSError, Image.DecompressionBombError):
            continue
        if data and min(size) >= _MIN_EDGE and size[0] * size[1] <= _MAX_PIXELS and len(data) <= _MAX_BYTES:
            yield _entry(f"real-{number:05}{path.suffix.lower()}", "real", data, size[0] * size[1])


def _entry(name: str, kind: Kind, data: bytes, pixels: int, answer: tuple[int, str | None] = (OK, None)) -> Entry:
    digest = hashlib.sha256(data).hexdigest()
    return Entry(name, kind, Path(name).suffix[1:], len(data), pixels, digest, *answer, data)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.corpus", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="pictures to mix in")
    parser.add_argument("--max-megapixels", type=float, default=float("inf"), help="leave larger pictures out")
    options = parser.parse_args()
    if options.real and not options.real.is_dir():
        parser.error(f"no folder {options.real}")
    try:
        entries = write(options.folder, options.real, options.max_megapixels)
    except (CorpusError, OSError) as error:
        parser.exit(1, f"error: {error}\n")
    kinds = [entry.kind for entry in entries]
    total = sum(entry.size for entry in entries)
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    sys.stdout.write(f"{len(entries)} files, {total / 1e6:.0f} MB, in {options.folder}: {counts}\n")


if __name__ == "__main__":
    main()
