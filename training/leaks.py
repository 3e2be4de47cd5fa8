"""Near-duplicates between splits, by perceptual hash and by embedding: written with every run as leaks.json and leaks.md.

Pictures of the test split are looked at only to find leaks. Nothing is chosen by them: the embedding's threshold comes from
pictures that stand twice in the training split.
"""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.fft

from training.data import Example, read_picture

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Measure = Literal["hash", "embedding"]
Embed = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.floating]]
"""Pictures [N, 224, 224, 3] -> features [N, D]."""

REPORT_FILE = "leaks.json"
TABLE_FILE = "leaks.md"

HASH_THRESHOLD = 6.0
"""Most bits, of 64, in which the hashes of near-duplicates differ."""

EMBEDDING_THRESHOLD = 0.05
"""Largest cosine distance of near-duplicates where no picture stands twice in the training split."""

SCALES: Mapping[Measure, float] = {"hash": 32.0, "embedding": 1.0}
"""Both are vectors of length one: 32 (1 - product) is the number of bits that differ, 1 - product the cosine distance."""

NEAREST = 10
BATCH_SIZE = 64
BLOCK_SIZE = 512
"""Pictures that are compared with a whole split at a time: against 15,000, a matrix of distances takes 30 MB."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two pictures of different groups: paths relative to the data's folder, labels, bits and cosine distance."""

    earlier: str
    earlier_label: str
    later: str
    later_label: str
    hash: float
    embedding: float


@dataclasses.dataclass(frozen=True)
class Overlap:
    """What two splits share. Captures of one picture count as one.

    Attributes:
        pictures: in the later split.
        near: by `hash`, `embedding` or `both`, how many of them have such a neighbour of another group in the earlier split.
        shared_groups: number of groups that stand in both splits.
        nearest: by either measure, the closest pairs; each picture of the later split stands in one at most.
    """

    earlier: str
    later: str
    pictures: int
    near: dict[str, int]
    shared_groups: int
    nearest: dict[Measure, list[Pair]]


@dataclasses.dataclass(frozen=True)
class Leaks:
    """The report.

    Attributes:
        known_pairs: number of pairs of captures of one picture in the training split.
        known_distances: by measure, their median and 95 % quantile; empty without such pairs.
        thresholds: by measure, the distance up to which pictures are near.
        within_training: the training split against its own other groups, for comparison: what lesions give that look alike.
        overlaps: train and val, train and test, val and test.
    """

    known_pairs: int
    known_distances: dict[Measure, tuple[float, float]]
    thresholds: dict[Measure, float]
    within_training: Overlap
    overlaps: list[Overlap]


@dataclasses.dataclass(frozen=True)
class _Pictures:
    """Of one split: vectors of length one [N, D] by measure, and the numbers of their groups [N]."""

    split: str
    examples: Sequence[Example]
    vectors: Mapping[Measure, Floats]
    groups: Rows

    def take(self, rows: Sequence[int] | Rows, split: str) -> "_Pictures":
        chosen = np.asarray(rows, np.int64)
        vectors = {measure: vectors[chosen] for measure, vectors in self.vectors.items()}
        return _Pictures(split, [self.examples[row] for row in chosen], vectors, self.groups[chosen])

    def distances(self, others: "_Pictures") -> dict[Measure, Floats]:
        """Of each to the one in the same place, [N] by measure."""
        distances = {}
        for measure, scale in SCALES.items():
            products = np.einsum("nd,nd->n", self.vectors[measure], others.vectors[measure])
            distances[measure] = np.maximum(scale * (1 - products), 0)
        return distances

    def count(self, hits: npt.NDArray[np.bool_]) -> int:
        return len({self.examples[row].capture_id for row in np.flatnonzero(hits)})


def write_leaks(examples: Sequence[Example], root: Path, embed: Embed, run: Path) -> None:
    """Write leaks.md and leaks.json into the run's folder; the other arguments are those of `find_leaks`."""
    leaks = find_leaks(examples, root, embed)
    (run / TABLE_FILE).write_text(render(leaks))
    (run / REPORT_FILE).write_text(json.dumps(dataclasses.asdict(leaks), indent=2) + "\n")


def find_leaks(examples: Sequence[Example], root: Path, embed: Embed) -> Leaks:
    """Compare the splits with each other.

    Args:
        examples: of all splits and labels.
        root: folder that reported paths are relative to.
        embed: gives features that lie close together for near-duplicates.
    """
    pictures = _describe(examples, embed)
    train, val, test = (
        pictures.take([row for row, example in enumerate(examples) if example.split == split], split)
        for split in ("train", "val", "test")
    )
    first, second = _captures(train.examples).T
    known = train.take(first, "train").distances(train.take(second, "train")) if len(first) else {}
    thresholds: dict[Measure, float] = {"hash": HASH_THRESHOLD, "embedding": EMBEDDING_THRESHOLD}
    if known:
        thresholds["embedding"] = float(np.median(known["embedding"]))
    return Leaks(
        known_pairs=len(first),
        known_distances={measure: tuple(np.quantile(values, [0.5, 0.95]).tolist()) for measure, values in known.items()},
        thresholds=thresholds,
        within_training=_overlap(train, train, thresholds, root),
        overlaps=[_overlap(*splits, thresholds, root) for splits in ((train, val), (train, test), (val, test))],
    )


def perceptual_hashes(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Hashes by cosine transform (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010): pHash.

    Luma, means of 7 by 7 pixels, and of the 8 by 8 lowest frequencies of the 32 by 32 means, without those that are constant
    along an axis, whether each lies above their median.

    Args:
        images: [N, 224, 224, 3].

    Returns:
        [N, 64].
    """
    luma = images @ np.array([0.299, 0.587, 0.114], np.float32)
    means = luma.reshape(-1, 32, 7, 32, 7).mean(axis=(2, 4))
    lowest = scipy.fft.dctn(means, axes=(1, 2))[:, 1:9, 1:9].reshape(-1, 64)
    return lowest > np.median(lowest, axis=1, keepdims=True)


def _describe(examples: Sequence[Example], embed: Embed) -> _Pictures:
    """Decodes as it goes: pixels of every split and label, kept, would be gigabytes that nothing else reads."""
    vectors: dict[Measure, list[Floats]] = {"hash": [], "embedding": []}
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(examples), BATCH_SIZE):
            paths = [example.path for example in examples[start : start + BATCH_SIZE]]
            images = np.stack(list(pool.map(read_picture, paths)))
            vectors["hash"].append(np.where(perceptual_hashes(images), 0.125, -0.125).astype(np.float32))
            features = embed(images).astype(np.float32)
            vectors["embedding"].append(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12))
    _, groups = np.unique([example.group for example in examples], return_inverse=True)
    return _Pictures("", examples, {measure: np.concatenate(blocks) for measure, blocks in vectors.items()}, groups)


def _captures(examples: Sequence[Example]) -> Rows:
    """Rows of every two captures of one picture, [N, 2]."""
    captures = defaultdict(list)
    for row, example in enumerate(examples):
        captures[example.capture_id].append(row)
    return np.array([pair for rows in captures.values() for pair in combinations(rows, 2)], np.int64).reshape(-1, 2)


def _overlap(earlier: _Pictures, later: _Pictures, thresholds: Mapping[Measure, float], root: Path) -> Overlap:
    near = {by: np.zeros(len(later.examples), bool) for by in ("hash", "embedding", "both")}
    closest: dict[Measure, Rows] = {measure: np.zeros(len(later.examples), np.int64) for measure in SCALES}
    for rows, distances in _blocks(earlier, later):
        hits = {measure: distances[measure] <= thresholds[measure] for measure in SCALES}
        for by, hit in (hits | {"both": hits["hash"] & hits["embedding"]}).items():
            near[by][rows] = hit.any(axis=1)
        for measure in SCALES:
            closest[measure][rows] = distances[measure].argmin(axis=1)
    return Overlap(
        earlier=earlier.split,
        later=later.split,
        pictures=later.count(np.ones(len(later.examples), bool)),
        near={by: later.count(hits) for by, hits in near.items()},
        shared_groups=len(np.intersect1d(earlier.groups, later.groups)),
        nearest={measure: _nearest(earlier, later, closest[measure], measure, root) for measure in SCALES},
    )


def _blocks(earlier: _Pictures, later: _Pictures) -> Iterator[tuple[slice, dict[Measure, Floats]]]:
    """Rows of the later split with their distances to all of the earlier one: infinite within a group."""
    for start in range(0, len(later.examples) if earlier.examples else 0, BLOCK_SIZE):
        rows = slice(start, start + BLOCK_SIZE)
        related = later.groups[rows, None] == earlier.groups
        distances = {}
        for measure, scale in SCALES.items():
            products = later.vectors[measure][rows] @ earlier.vectors[measure].T
            distances[measure] = np.where(related, np.float32(np.inf), scale * (1 - products))
        yield rows, distances


def _nearest(earlier: _Pictures, later: _Pictures, closest: Rows, measure: Measure, root: Path) -> list[Pair]:
    if not earlier.examples:
        return []
    neighbours = earlier.take(closest, earlier.split)
    distances = later.distances(neighbours)
    pairs: dict[str, Pair] = {}
    for row in np.lexsort((distances["embedding"], distances[measure])):
        one, other = neighbours.examples[row], later.examples[row]
        # Where the earlier split has no other group, the closest is one of the same.
        if one.group != other.group and other.capture_id not in pairs:
            pairs[other.capture_id] = Pair(
                earlier=one.path.relative_to(root).as_posix(),
                earlier_label=one.label,
                later=other.path.relative_to(root).as_posix(),
                later_label=other.label,
                hash=float(distances["hash"][row]),
                embedding=float(distances["embedding"][row]),
            )
        if len(pairs) == NEAREST:
            break
    return list(pairs.values())


def render(leaks: Leaks) -> str:
    """The report as Markdown."""
    lines = [
        "# Near-duplicates between splits",
        "",
        "Pictures of different groups are compared, by perceptual hash (how many of 64 bits differ) and by features of the",
        "network that the run started with (cosine distance). Captures of one picture count as one. Near is a suspicion, not a",
        "proof: the first row of the second table shows what lesions give that only look alike.",
        "",
        f"| | near up to | {leaks.known_pairs} pairs of captures of one picture: median | 95 % quantile |",
        "|---|---|---|---|",
    ]
    for measure, threshold in leaks.thresholds.items():
        known = [f"{value:.4g}" for value in leaks.known_distances.get(measure, ())] or ["", ""]
        lines.append(" | ".join([f"| {measure}", f"{threshold:.4g}", *known]) + " |")
    lines += [
        "",
        "| pictures of | in other groups of | near by hash | by embedding | by both | groups in both |",
        "|---|---|---|---|---|---|",
    ]
    for overlap in (leaks.within_training, *leaks.overlaps):
        shares = " | ".join(f"{near} ({near / max(overlap.pictures, 1):.1%})" for near in overlap.near.values())
        lines.append(
            f"| {overlap.later}: {overlap.pictures} | {overlap.earlier} | {shares} "
            f"| {'' if overlap is leaks.within_training else overlap.shared_groups} |"
        )
    for overlap in leaks.overlaps:
        for measure, pairs in overlap.nearest.items():
            lines += [
                "",
                f"## {overlap.earlier} and {overlap.later}, nearest by {measure}",
                "",
                f"| {overlap.earlier} | label | {overlap.later} | label | bits | cosine distance |",
                "|---|---|---|---|---|---|",
            ]
            lines += [
                f"| {pair.earlier} | {pair.earlier_label} | {pair.later} | {pair.later_label} "
                f"| {pair.hash:.0f} | {pair.embedding:.4f} |"
                for pair in pairs
            ]
    return "\n".join([*lines, ""])
