"""Examples and their pixels: a CSV, or folders as in the paper -> uint8 arrays of the contract's shape."""

import csv
import dataclasses
import hashlib
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.contract import CLASSES, IMAGE_SHAPE
from serving.preprocess import to_model_input, to_rgb

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}


@dataclasses.dataclass(frozen=True)
class Example:
    """One picture.

    Attributes:
        label: `benign`, `malignant`, `premalignant` (in neither class) or `none`.
        dx: diagnosis, or the kind of a `none` picture.
        group: pictures of one group never stand in two splits.
        split: `train`, `val` or `test`.
    """

    path: Path
    label: str
    dx: str
    source: str
    group: str
    split: str

    @property
    def capture_id(self) -> str:
        """The same for the several captures of one picture (HAM10000 stands in the data twice, under the same file names)."""
        return f"{self.group}/{self.label}/{self.path.stem}"


def load_examples(data: Path, validation_share: float = 0.2, seed: int = 1) -> list[Example]:
    """Read a CSV (with paths relative to it) or a folder `train/<class>/*`, `test/<class>/*`.

    A folder's validation split is drawn from its training pictures. The paper took it from the test pictures.

    Raises:
        ValueError: the data hold no example of one of the two classes.
    """
    examples = _from_csv(data) if data.is_file() else _from_folders(data, validation_share, seed)
    for label in CLASSES:
        if not any(example.label == label for example in examples):
            raise ValueError(f"{data} holds no {label} example")
    return examples


def _from_csv(path: Path) -> list[Example]:
    with path.open(newline="") as file:
        return [
            Example(path.parent / row["path"], row["label"], row["dx"], row["source"], row["group"], row["split"])
            for row in csv.DictReader(file)
        ]


def _from_folders(root: Path, validation_share: float, seed: int) -> list[Example]:
    rng = np.random.default_rng(seed)
    examples = []
    for folder in ("train", "test"):
        for path in sorted((root / folder).glob("*/*")):
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            split = "val" if folder == "train" and rng.random() < validation_share else folder
            label = path.parent.name
            examples.append(Example(path, label, label, root.name, f"{folder}/{label}/{path.stem}", split))
    return examples


def select(examples: Iterable[Example], split: str, labels: Sequence[str] = CLASSES) -> list[Example]:
    """Those of one split that carry one of the labels."""
    return [example for example in examples if example.split == split and example.label in labels]


def evenly(examples: list[Example], most: int | None) -> list[Example]:
    """At most so many, spread over the whole list."""
    return examples if most is None else examples[:: math.ceil(len(examples) / most)]


def binary_labels(examples: Sequence[Example]) -> npt.NDArray[np.int64]:
    """1 for malignant, 0 for everything else. Shape [N]."""
    return np.array([example.label == "malignant" for example in examples], dtype=np.int64)


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """One picture as the model's input, [224, 224, 3]."""
    with Image.open(path) as opened:
        return to_model_input(to_rgb(opened))


def load_pixels(examples: Sequence[Example], cache: Path) -> npt.NDArray[np.uint8]:
    """Pixels of all examples, [N, 224, 224, 3], memory-mapped from a file that is made once.

    Args:
        examples: in the order of the result.
        cache: folder for the decoded arrays; the file's name is a digest of paths, sizes and times, so that other examples,
            or other pictures under their names, make another file.
    """
    stats = [example.path.stat() for example in examples]
    pictures = [f"{example.path} {stat.st_size} {stat.st_mtime_ns}" for example, stat in zip(examples, stats, strict=True)]
    digest = hashlib.sha256("\n".join(pictures).encode()).hexdigest()[:16]
    path = cache / f"pixels-{digest}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        pixels = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=(len(examples), *IMAGE_SHAPE))
        with ThreadPoolExecutor() as pool:
            for index, picture in enumerate(pool.map(read_picture, (example.path for example in examples))):
                pixels[index] = picture
        pixels.flush()
        partial.rename(path)
    return np.load(path, mmap_mode="r")
