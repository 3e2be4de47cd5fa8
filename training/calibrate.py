"""Fits what follows the network, from training and validation pictures only: Platt's map, thresholds, the none score."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from sklearn.linear_model import LogisticRegression

from serving.contract import IMAGE_SIZE
from serving.metadata import Calibration, Thresholds
from training import rejection
from training.augment import augment
from training.config import Augmentation, TrainingConfig
from training.data import binary_labels, evenly, load_examples, load_pixels, select
from training.evaluate import decide_all, none_kind
from training.graph import NetworkWeights, batches_of, run_batches
from training.model import STAGES, build_classifier
from training.rejection import Features, Rejection
from training.statistics import Floats, auroc, expected_calibration_error
from training.train import WEIGHTS_FILE

CALIBRATION_FILE = "calibration.json"
REJECTION_FILE = "rejection.npz"
LEFT_OUT_FILE = "left-out.json"
FEATURES_FILE = "features.npz"

MAX_LESIONS = 6500
"""Training pictures whose statistics the none score is fitted to, each as it is and as an augmented copy."""

COPIES: tuple[Augmentation, ...] = ("capture", "foreign", "foreign")
"""How each picture that the none score is fitted to is changed: another camera shall not look like another world."""

UNSEEN_ACCEPTED_SHARE = 0.15
"""Share of a kind of picture never seen before, in the mean over kinds, that the none threshold may let pass. A lower threshold
turns away more lesions of cameras never seen before, malignant ones too; `python -m training unseen` shows how many."""

SENSITIVITY = 0.95
"""Of the operating threshold, on validation."""

UNCERTAIN_MALIGNANT_SHARE = 0.006
REJECTED_MALIGNANT_SHARE = 0.008
"""Shares of malignant validation pictures that the abstain band (over all) and the none threshold (in every source) may take
from a label. Together they stay under the 2 % that may at most go to `none`, with room for other pictures than these."""

REJECTED_LESION_SHARE = 0.02
"""Share of validation lesions that the none threshold may reject, in every source: a rare camera is not out of scope."""

MIN_SOURCE_LESIONS = 100
MIN_SOURCE_MALIGNANT = 50
"""A source with fewer has no tail to speak of and counts only as part of all."""


def calibrate(run: Path) -> None:
    """Write calibration.json, rejection.npz, left-out.json and features.npz into the run's folder and print what was measured.

    Args:
        run: a finished training run.
    """
    config = TrainingConfig.load(run)
    examples = load_examples(Path(config.data), config.validation_share, config.seed)
    weights = load_network(run)
    cache = run.parent / "cache"

    train = evenly(select(examples, "train"), min(config.max_examples or MAX_LESIONS, MAX_LESIONS))
    outliers = select(examples, "train", ["none"])
    val = evenly(select(examples, "val"), config.max_examples)
    print("features of the training and validation pictures")
    lesions = _run_with_copies(weights, load_pixels(train, cache))
    val_outputs = run_batches(weights, batches_of(load_pixels(val, cache)))
    no_rows = {name: value[:0] for name, value in lesions.items()}
    outlier_outputs = _run_with_copies(weights, load_pixels(outliers, cache)) if outliers else no_rows
    kinds = (1 + len(COPIES)) * [none_kind(example) for example in outliers]

    calibration = fit_platt(val_outputs["logit"], binary_labels(val))
    chosen, left_out = rejection.fit(lesions, [example.dx for example in train], outlier_outputs, kinds, val_outputs)
    malignant = apply_platt(calibration, val_outputs["logit"])
    known = FittedTo(
        lesions=lesions,
        sources=np.array((1 + len(COPIES)) * [example.source for example in train]),
        outliers=outlier_outputs,
        kinds=np.array(kinds, dtype=np.str_),
        val=val_outputs,
        val_sources=np.array([example.source for example in val]),
        val_is_malignant=binary_labels(val).astype(bool),
    )
    thresholds = choose_thresholds(malignant, known.val_is_malignant, none_threshold(chosen, known))

    chosen.save(run / REJECTION_FILE)
    known.save(run / FEATURES_FILE)
    document = {"calibration": dataclasses.asdict(calibration), "thresholds": dataclasses.asdict(thresholds)}
    (run / CALIBRATION_FILE).write_text(json.dumps(document, indent=2) + "\n")
    (run / LEFT_OUT_FILE).write_text(json.dumps([dataclasses.asdict(result) for result in left_out], indent=2) + "\n")
    _print_summary(known, malignant, thresholds, chosen, left_out)


def load_network(run: Path) -> NetworkWeights:
    """Folded weights of a finished run."""
    return NetworkWeights(load_classifier(run))


def load_classifier(run: Path) -> keras.Model:
    """The network of a finished run as Keras keeps it: float32, BatchNorm in place."""
    keras.mixed_precision.set_global_policy("float32")
    classifier = build_classifier("none")
    classifier.load_weights(run / WEIGHTS_FILE)
    return classifier


def load_calibration(run: Path) -> tuple[Calibration, Thresholds]:
    """What `calibrate` wrote."""
    document = json.loads((run / CALIBRATION_FILE).read_text())
    return Calibration(**document["calibration"]), Thresholds(**document["thresholds"])


def fit_platt(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Calibration:
    """Platt's two-parameter map (1999), by unpenalised logistic regression on validation logits [N]."""
    model = LogisticRegression(C=np.inf).fit(logits[:, None], labels)
    return Calibration(slope=float(model.coef_[0, 0]), intercept=float(model.intercept_[0]))


def apply_platt(calibration: Calibration, logits: npt.NDArray[np.float32]) -> Floats:
    """Calibrated probability of malignant, [N]."""
    return 1 / (1 + np.exp(-(calibration.slope * logits.astype(np.float64) + calibration.intercept)))


def choose_thresholds(malignant: Floats, is_malignant: npt.NDArray[np.bool_], none: float) -> Thresholds:
    """Operating point and abstain band from validation lesions.

    Args:
        malignant: calibrated probability of each lesion, [N].
        is_malignant: the truth, [N].
        none: the none threshold.
    """
    positives = malignant[is_malignant]
    missed = 1 - SENSITIVITY
    low, threshold, high = np.quantile(
        positives, [missed - UNCERTAIN_MALIGNANT_SHARE / 2, missed, missed + UNCERTAIN_MALIGNANT_SHARE / 2], method="lower"
    )
    return Thresholds(
        malignant=float(threshold),
        none=none,
        uncertain_low=float(low),
        uncertain_high=float(high),
        # As likely malignant as the middle one of the malignant lesions.
        guard=float(np.median(positives)),
    )


def none_threshold(chosen: Rejection, known: "FittedTo") -> float:
    """The highest threshold that lets pass no more of unseen kinds than it may, or the lowest that spares enough lesions.

    Whichever is higher: a lesion turned away can cost more than a picture of something else that is answered.

    Args:
        chosen: the none score.
        known: what it was fitted to.
    """
    lowest = sparing_threshold(_none_score(chosen, known), known.val_is_malignant, known.val_sources)
    if len(set(known.kinds)) < 2:
        return lowest
    plain = np.arange(len(known.kinds)) < len(known.kinds) // (1 + len(COPIES))
    unseen = rejection.score_unseen(chosen.method, chosen.stages, known.lesions, known.outliers, known.kinds, known.val)
    scores = {kind: of_kind[plain[known.kinds == kind]] for kind, (_, of_kind) in unseen.items()}
    weights = np.concatenate([np.full(len(values), 1 / len(values)) for values in scores.values()])
    joined = np.concatenate(list(scores.values()))
    return max(lowest, float(np.quantile(joined, UNSEEN_ACCEPTED_SHARE, weights=weights, method="inverted_cdf")))


def sparing_threshold(none_score: Floats, is_malignant: npt.NDArray[np.bool_], sources: npt.NDArray[np.str_]) -> float:
    """The lowest none threshold that rejects no more lesions than it may, of all and of every source, all [N]."""
    limits = [(none_score, REJECTED_LESION_SHARE), (none_score[is_malignant], REJECTED_MALIGNANT_SHARE)]
    for source in np.unique(sources):
        lesions, cancers = none_score[sources == source], none_score[(sources == source) & is_malignant]
        if len(lesions) >= MIN_SOURCE_LESIONS:
            limits.append((lesions, REJECTED_LESION_SHARE))
        if len(cancers) >= MIN_SOURCE_MALIGNANT:
            limits.append((cancers, REJECTED_MALIGNANT_SHARE))
    return float(max(np.quantile(scores, 1 - share) for scores, share in limits))


def _augmented(batches: Iterator[npt.NDArray[np.uint8]], kind: Augmentation, seed: int) -> Iterator[npt.NDArray[np.uint8]]:
    change = tf.function(lambda images, seeds: tf.cast(tf.round(augment(images, IMAGE_SIZE, kind, seeds)), tf.uint8))
    for number, batch in enumerate(batches):
        yield change(tf.constant(batch), tf.constant([seed, number])).numpy()


@dataclasses.dataclass(frozen=True)
class FittedTo:
    """What a run's none score and its threshold were fitted to.

    Attributes:
        lesions, outliers, val: features of training lesions and outliers, with their copies, and of validation lesions.
        sources, kinds, val_sources: where each lesion comes from, and the kind of each outlier.
        val_is_malignant: the truth of each validation lesion.
    """

    lesions: Features
    sources: npt.NDArray[np.str_]
    outliers: Features
    kinds: npt.NDArray[np.str_]
    val: Features
    val_sources: npt.NDArray[np.str_]
    val_is_malignant: npt.NDArray[np.bool_]

    def save(self, path: Path) -> None:
        """Write an .npz."""
        arrays: dict[str, Any] = {}
        for name, value in vars(self).items():
            arrays |= {f"{name}/{stage}": value[stage] for stage in STAGES} if isinstance(value, dict) else {name: value}
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> "FittedTo":
        """Inverse of `save`."""
        with np.load(path) as stored:
            return cls(
                **{
                    name: stored[name] if name in stored else {stage: stored[f"{name}/{stage}"] for stage in STAGES}
                    for name in cls.__dataclass_fields__
                }
            )


def _run_with_copies(weights: NetworkWeights, pixels: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
    """Outputs of all pictures, then of their copies as other cameras would have taken them.

    The none score shall not find such copies strange. Outliers have them too: if only lesions were ever blurred, blur itself
    would speak for a lesion.
    """
    parts = [run_batches(weights, batches_of(pixels))]
    for seed, kind in enumerate(COPIES):
        parts.append(run_batches(weights, _augmented(batches_of(pixels), kind, seed)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _none_score(chosen: Rejection, known: FittedTo) -> Floats:
    score: Floats = chosen.score(known.val).numpy().astype(np.float64)
    return score


def _print_summary(
    known: FittedTo,
    malignant: Floats,
    thresholds: Thresholds,
    chosen: Rejection,
    left_out: Sequence[rejection.LeftOut],
) -> None:
    truth = known.val_is_malignant
    everything = np.arange(len(truth))
    sent_to_none = np.isin(decide_all(malignant, _none_score(chosen, known), thresholds), ("out_of_scope", "uncertain"))
    print(f"validation AUROC {auroc(truth, malignant)(everything):.4f}, n {len(truth)}")
    print(f"validation ECE {expected_calibration_error(truth, malignant)(everything):.4f}")
    print(f"specificity at {SENSITIVITY:.0%} sensitivity {(malignant[~truth] < thresholds.malignant).mean():.4f}")
    print(f"malignant lesions sent to none {sent_to_none[truth].mean():.4f}, benign {sent_to_none[~truth].mean():.4f}")
    print(f"none score: {chosen.method}; kinds left out in turn:")
    for result in left_out:
        figures = f"AUROC {result.auroc:.4f}  AUPR {result.aupr:.4f}  FPR@95 {result.false_positive_rate:.3f}  n {result.n}"
        print(f"  {result.method:38} {result.kind:12} {figures}")
