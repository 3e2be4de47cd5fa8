"""What changes the answer although the lesion stays the same, and what averaging over views of one picture gains.

Measured on an exported version: views of the dihedral group, JPEG, blur, light, small rotations, the other capture in the data.
"""

import dataclasses
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter
from scipy.special import expit, logit

from serving.metadata import Estimate, ModelMetadata, Score, Thresholds
from training.data import Example, binary_labels, load_examples, load_pixels, select
from training.evaluate import SENT_TO_NONE, Groups, Mask, PredictFn, decide_all, predict_all
from training.statistics import Floats, Rows, auroc, bootstrap, bootstrap_share, expected_calibration_error, reflect

Pixels = npt.NDArray[np.uint8]
Change = Callable[[Pixels], Pixels]
"""uint8 [N, H, W, 3] -> uint8 [N, H, W, 3], the same lesions."""

Figures = Iterator[tuple[str, Estimate]]

MARGIN = 16
"""Pixels mirrored at each border before a rotation: at 224 pixels and up to 8 degrees no corner is left without a picture."""

MIN_PICTURES = 50
"""A source with fewer counts only as part of all: a flip or two would be several per cent of it."""


def _view(quarter_turns: int, is_mirrored: bool) -> Change:
    return lambda images: np.rot90(images[:, :, ::-1] if is_mirrored else images, quarter_turns, axes=(1, 2))


def _each(change: Callable[[Image.Image], Image.Image]) -> Change:
    return lambda images: np.stack([np.asarray(change(Image.fromarray(image))) for image in images])


def _jpeg(grade: int) -> Change:
    def code(picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=grade)
        return Image.open(buffer)

    return _each(code)


def _blur(radius_px: float) -> Change:
    return _each(lambda picture: picture.filter(ImageFilter.GaussianBlur(radius_px)))


def _light(factor: float) -> Change:
    return lambda images: np.clip(np.rint(images * factor), 0, 255).astype(np.uint8)


def _rotation(degrees: float) -> Change:
    turn = _each(lambda picture: picture.rotate(degrees, Image.Resampling.BILINEAR))
    pad, inner = ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), slice(MARGIN, -MARGIN)
    return lambda images: turn(np.pad(images, pad, mode="reflect"))[:, inner, inner]


DIHEDRAL: Mapping[str, Change] = {
    "identity": _view(0, is_mirrored=False),
    **{f"turn {90 * turns}": _view(turns, is_mirrored=False) for turns in (1, 2, 3)},
    "mirror": _view(0, is_mirrored=True),
    **{f"mirror {90 * turns}": _view(turns, is_mirrored=True) for turns in (1, 2, 3)},
}
"""The eight ways to lay a square on itself. A dermoscope has no up and no left, so none of them says anything of the lesion."""

CHANGES: Mapping[str, Change] = {
    **DIHEDRAL,
    **{f"JPEG {grade}": _jpeg(grade) for grade in (90, 70, 50, 30)},
    **{f"blur {radius} px": _blur(radius) for radius in (1, 2)},
    **{f"light x{factor}": _light(factor) for factor in (0.8, 1.2)},
    **{f"turn {degrees:+}": _rotation(degrees) for degrees in (5, -5)},
}
"""Each costs one pass over the split. Turns are counter-clockwise, in degrees; the blur's radius is its standard deviation."""

AVERAGES: Mapping[str, Sequence[str]] = {
    "1 view": ("identity",),
    "2 views": ("identity", "mirror"),
    "4 views": ("identity", "turn 90", "turn 180", "turn 270"),
    "8 views": tuple(DIHEDRAL),
}
"""Views whose answers are averaged; an answer then costs as many passes."""


class Answers(NamedTuple):
    """What a version says of N pictures.

    Attributes:
        malignant: calibrated probability, [N].
        none_score: [N].
        labels: as the gateway gives them, `benign`, `malignant` or `none`, [N]. Two reasons for `none` are one label.
    """

    malignant: Floats
    none_score: Floats
    labels: npt.NDArray[np.str_]

    def take(self, rows: Rows) -> "Answers":
        """Those of some of the pictures, or in another order."""
        return Answers(*(values[rows] for values in self))


def robustness(predict: PredictFn, metadata: ModelMetadata, data: Path, cache: Path, split: str = "test") -> list[Score]:
    """Flips of the answer and AUROC under every change, and the figures of averaged views, over all and for each source.

    `class flips` is the share of pictures whose label changes in any way, `benign/malignant flips` that of those which go from
    one class to the other. `capture` sets each capture against the next one of its picture, where there is one.

    Args:
        predict: the exported graph.
        metadata: of the same version, for its thresholds.
        data: as in `training.data.load_examples`; its lesions are taken.
        cache: folder for decoded pictures.
        split: never used to choose anything: `test`.
    """
    examples = select(load_examples(data), split)
    pixels = load_pixels(examples, cache)
    answers: dict[str, Answers] = {}
    for name, change in CHANGES.items():
        print(f"change: {name}")
        answers[name] = answer(*predict_all(_after(change, predict), pixels), metadata.thresholds)
    others = other_captures(examples)
    answers["capture"] = answers["identity"].take(others)
    averages = {name: average([answers[view] for view in views], metadata.thresholds) for name, views in AVERAGES.items()}

    truth = binary_labels(examples).astype(bool)
    groups, sources = (np.array([getattr(example, name) for example in examples]) for name in ("group", "source"))
    scores: list[Score] = []
    for subset in ("all", *np.unique(sources)):
        rows = np.flatnonzero((sources == subset) | (subset == "all"))
        if len(rows) < MIN_PICTURES and subset != "all":
            continue
        for name, changed in answers.items():
            kept = rows[others[rows] != rows] if name == "capture" else rows
            if len(kept):
                figures = _of_change(answers["identity"].take(kept), changed.take(kept), truth[kept], groups[kept])
                scores += [Score(f"{metric}: {name}", str(subset), estimate) for metric, estimate in figures]
        views = [answers[name].take(rows) for name in DIHEDRAL]
        scores += [Score(metric, str(subset), estimate) for metric, estimate in _of_views(views, groups[rows])]
        for name, averaged in averages.items():
            figures = [*_of_average(averaged.take(rows), truth[rows], groups[rows])]
            if len(AVERAGES[name]) > 1:
                figures += _gain(views[0], averaged.take(rows), truth[rows], groups[rows])
            scores += [Score(f"{metric}: {name}", str(subset), estimate) for metric, estimate in figures]
    return scores


def _after(change: Change, predict: PredictFn) -> PredictFn:
    return lambda images: predict(change(images))


def answer(malignant: Floats, none_score: Floats, thresholds: Thresholds) -> Answers:
    """The labels that follow from probabilities [N] and none scores [N], with both."""
    decisions = decide_all(malignant, none_score, thresholds)
    return Answers(malignant, none_score, np.where(np.isin(decisions, SENT_TO_NONE), "none", decisions))


def average(views: Sequence[Answers], thresholds: Thresholds) -> Answers:
    """Mean log-odds and mean none score over views of the same pictures.

    Platt's map is affine in the logit, so that the mean of the calibrated log-odds is the map of the mean logit.
    """
    malignant = np.clip([view.malignant for view in views], 1e-7, 1 - 1e-7)
    return answer(expit(logit(malignant).mean(axis=0)), np.mean([view.none_score for view in views], axis=0), thresholds)


def other_captures(examples: Sequence[Example]) -> Rows:
    """For each example the index of the next capture of the same picture, its own where there is no other. Shape [N]."""
    captures: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        captures.setdefault(example.capture_id, []).append(index)
    others = np.arange(len(examples))
    for indices in captures.values():
        others[indices] = np.roll(indices, -1)
    return others


def _contradict(labels: npt.NDArray[np.str_], others: npt.NDArray[np.str_]) -> Mask:
    """Where one is benign and the other malignant; abstaining contradicts nothing."""
    return (labels != others) & (labels != "none") & (others != "none")


def _of_change(plain: Answers, changed: Answers, truth: Mask, groups: Groups) -> Figures:
    yield "class flips", bootstrap_share(plain.labels != changed.labels, groups)
    yield "benign/malignant flips", bootstrap_share(_contradict(plain.labels, changed.labels), groups)
    if truth.any() and not truth.all():
        yield "AUROC", bootstrap(auroc(truth, changed.malignant), groups)


def _of_views(views: Sequence[Answers], groups: Groups) -> Figures:
    """Over the dihedral group, the untouched view first."""
    labels = np.stack([view.labels for view in views])
    flips = _contradict(labels[0], labels[1:])
    over_views = bootstrap_share(flips.ravel(), np.tile(groups, len(flips)))
    yield "label flips over dihedral views", dataclasses.replace(over_views, n=len(groups))
    # Two changed views may contradict each other where the untouched one abstains.
    any_flip = (labels == "benign").any(axis=0) & (labels == "malignant").any(axis=0)
    yield f"lesions with any flip over the {len(views)} views", bootstrap_share(any_flip, groups)


def _of_average(averaged: Answers, truth: Mask, groups: Groups) -> Figures:
    flagged = averaged.labels == "malignant"
    if truth.any() and not truth.all():
        yield "AUROC", bootstrap(auroc(truth, averaged.malignant), groups)
    if truth.any():
        yield "sensitivity", bootstrap_share(flagged[truth], groups[truth])
    if not truth.all():
        yield "specificity", bootstrap_share(~flagged[~truth], groups[~truth])
    yield "ECE", reflect(bootstrap(expected_calibration_error(truth, averaged.malignant), groups))


def _gain(single: Answers, averaged: Answers, truth: Mask, groups: Groups) -> Figures:
    """Of the same pictures: the two vary together from resample to resample, so that their difference has its own interval."""
    if truth.any() and not truth.all():
        of_single, of_average = auroc(truth, single.malignant), auroc(truth, averaged.malignant)
        yield "gain in AUROC", bootstrap(lambda rows: of_average(rows) - of_single(rows), groups)
