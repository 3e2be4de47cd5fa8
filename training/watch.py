"""What a version carries to be watched by: how its scores are distributed, and its answer to a known picture."""

import hashlib
from pathlib import Path

import numpy as np

from serving.contract import GOLDEN_PICTURE, NONE_SCORE_EDGES, NONE_SCORE_OUTPUT, PROBABILITIES_OUTPUT, PROBABILITY_EDGES
from serving.embedded.check import GOLDEN_TOLERANCES
from serving.metadata import GoldenAnswer, Histogram, Reference
from training.config import TrainingConfig
from training.data import load_examples, load_pixels, read_picture, select
from training.evaluate import PredictFn, predict_all
from training.statistics import Floats


def reference(predict: PredictFn, run: Path) -> Reference:
    """What the exported graph answers to the lesions of the validation split, of which the gateway measures the drift."""
    config = TrainingConfig.load(run)
    examples = select(load_examples(Path(config.data), config.validation_share, config.seed), "val")
    malignant, none_score = predict_all(predict, load_pixels(examples, run.parent / "cache"))
    return Reference("val", histogram(malignant, PROBABILITY_EDGES), histogram(none_score, NONE_SCORE_EDGES))


def histogram(values: Floats, edges: tuple[float, ...]) -> Histogram:
    """Counts of values [N]; one that equals an edge belongs to the bin below it, as in Prometheus' histograms."""
    bins = np.searchsorted(edges, values, side="left")
    return Histogram(edges, tuple(np.bincount(bins, minlength=len(edges) + 1).tolist()))


def golden_answer(predict: PredictFn) -> GoldenAnswer:
    """What the exported graph answers to the picture with which the gateway checks it."""
    malignant, none_score = predict_all(predict, read_picture(GOLDEN_PICTURE)[None])
    return GoldenAnswer(
        picture_sha256=hashlib.sha256(GOLDEN_PICTURE.read_bytes()).hexdigest(),
        malignant=float(malignant[0]),
        none_score=float(none_score[0]),
        malignant_tolerance=GOLDEN_TOLERANCES[PROBABILITIES_OUTPUT],
        none_score_tolerance=GOLDEN_TOLERANCES[NONE_SCORE_OUTPUT],
    )
