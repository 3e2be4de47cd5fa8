"""`python -m loadtests.corpus FOLDER`: the files that are sent, the same each time, and a manifest of what each must get."""

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from loadtests import hostile, pictures
from loadtests.recipe import OK, Kind

MANIFEST = "manifest.json"

SHARES: dict[Kind, float] = {"everyday": 10, "real": 10, "rare": 1}
"""How often a picture is of that kind, as far as the corpus has any."""

_REAL_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".heic", ".heif", ".avif"}
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
    """Make the files and, last, the manifest.

    Args:
        folder: to write into.
        real: folder with pictures to mix in; None for none.
        max_megapixels: larger pictures that must be classified are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = [*_painted(max_megapixels), *(_real(real) if real else [])]
    for entry in entries:
        (folder / entry.name).write_bytes(entry.data)
    documents = [{key: value for key, value in asdict(entry).items() if key != "data"} for entry in entries]
    (folder / MANIFEST).write_text(json.dumps({"files": documents}, indent=1) + "\n")
    return entries


def _painted(max_megapixels: float) -> Iterator[Entry]:
    for recipe in (*pictures.recipes(), *hostile.recipes()):
        if recipe.pixels <= max_megapixels * 1e6:
            yield _entry(recipe.name, recipe.kind, recipe.make(), recipe.pixels, (recipe.status, recipe.problem))


def _real(folder: Path) -> Iterator[Entry]:
    """Pictures of the folder that are within the gateway's limits; under a number, for a file's name may tell who it is of."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _REAL_SUFFIXES)
    for number, path in enumerate(found, 1):
        data = path.read_bytes()
        try:
            with Image.open(path) as opened:
                size = opened.size
        except (UnidentifiedImageError, Image.DecompressionBombError):
            continue
        if min(size) >= _MIN_EDGE and size[0] * size[1] <= _MAX_PIXELS and len(data) <= _MAX_BYTES:
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
    entries = write(options.folder, options.real, options.max_megapixels)
    kinds = [entry.kind for entry in entries]
    total = sum(entry.size for entry in entries)
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    sys.stdout.write(f"{len(entries)} files, {total / 1e6:.0f} MB, in {options.folder}: {counts}\n")


if __name__ == "__main__":
    main()
