"""Scores an exported version on a split it never saw, loaded afresh from its folder."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy.special import logit

from serving.contract import IMAGES_INPUT, NONE_SCORE_OUTPUT, PREDICT_SIGNATURE, PROBABILITIES_OUTPUT
from serving.metadata import Estimate, ModelMetadata, Score, Thresholds
from training.data import Example, load_examples, load_pixels, select
from training.graph import batches_of
from training.statistics import (
    Floats,
    Rows,
    area_under_risk_coverage,
    auroc,
    average_precision,
    bootstrap,
    bootstrap_share,
    expected_calibration_error,
    false_positive_rate,
    log_loss,
    negative_predictive_value,
    positive_predictive_value,
    reflect,
)

SENT_TO_NONE = ("out_of_scope", "uncertain")
PHOTO_KIND = "photo"
SKIN_KINDS = "skin condition or healthy skin"
NONE_SCORE = "none score"

PREVALENCES = (0.02, 0.07, 0.2, 0.5)
PPV = "malignant of those flagged"
NPV = "benign of those not flagged"

Mask = npt.NDArray[np.bool_]
Groups = npt.NDArray[np.str_]
"""For each row, the lesion it shows."""

PredictFn = Callable[[npt.NDArray[np.uint8]], Mapping[str, npt.NDArray[np.float32]]]
"""uint8 [N, 224, 224, 3] -> the outputs of the contract's predict signature."""


def load_predict_fn(version: Path) -> PredictFn:
    """The predict signature of an exported version."""
    # The signature lives as long as the object it belongs to.
    loaded = tf.saved_model.load(str(version))
    signature = loaded.signatures[PREDICT_SIGNATURE]

    def predict(images: npt.NDArray[np.uint8]) -> Mapping[str, npt.NDArray[np.float32]]:
        return {name: value.numpy() for name, value in signature(**{IMAGES_INPUT: tf.constant(images)}).items()}

    predict.loaded = loaded  # type: ignore[attr-defined]
    return predict


def load_metadata(version: Path) -> ModelMetadata:
    """The readable copy of a version's metadata."""
    return ModelMetadata.from_json((version / "assets.extra" / "metadata.json").read_text())


def predict_all(predict: PredictFn, pixels: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Malignant probability [N] and none score [N] of many pictures."""
    malignant, none_score = [], []
    for batch in batches_of(pixels):
        outputs = predict(batch)
        malignant.append(outputs[PROBABILITIES_OUTPUT][:, 1])
        none_score.append(outputs[NONE_SCORE_OUTPUT])
    return np.concatenate(malignant).astype(np.float64), np.concatenate(none_score).astype(np.float64)


def decide_all(malignant: Floats, none_score: Floats, thresholds: Thresholds) -> npt.NDArray[np.str_]:
    """The gateway's decision for many pictures: `benign`, `malignant`, `out_of_scope` or `uncertain`; a test compares them."""
    return np.select(
        [
            (none_score >= thresholds.none) & (malignant < thresholds.guard),
            none_score >= thresholds.none,
            (malignant >= thresholds.uncertain_low) & (malignant < thresholds.uncertain_high),
            malignant >= thresholds.malignant,
        ],
        ["out_of_scope", "uncertain", "uncertain", "malignant"],
        default="benign",
    )


def evaluate(predict: PredictFn, metadata: ModelMetadata, data: Path, cache: Path, split: str = "test") -> list[Score]:
    """Every figure of the model card, each with its interval and n.

    Lesions: over all and for each source. Rejection: for each kind of `none` against the lesions of all sources.

    Args:
        predict: the exported graph.
        metadata: of the same version, for its thresholds.
        data: as in `training.data.load_examples`.
        cache: folder for decoded pictures.
        split: never used to choose anything: `test`.
    """
    examples = select(load_examples(data), split, ("benign", "malignant", "premalignant", "none"))
    malignant, none_score = predict_all(predict, load_pixels(examples, cache))
    decisions = decide_all(malignant, none_score, metadata.thresholds)
    labels = np.array([example.label for example in examples])
    is_lesion = np.isin(labels, ("benign", "malignant"))
    sources = np.array([example.source for example in examples])
    subsets = {"all": is_lesion} | {source: is_lesion & (sources == source) for source in np.unique(sources[is_lesion])}
    table = ScoreTable([example.group for example in examples])
    for subset, rows in subsets.items():
        _score_lesions(table, subset, rows, labels == "malignant", malignant, decisions)
    _score_operating_point(table, is_lesion, labels == "malignant", malignant, decisions, metadata.thresholds)
    kinds = np.array([none_kind(example) for example in examples])
    is_none = labels == "none"
    kind_rows = {kind: kinds == kind for kind in sorted(set(kinds) - {""})}
    if (is_none & (kinds != PHOTO_KIND)).any():
        kind_rows[SKIN_KINDS] = is_none & (kinds != PHOTO_KIND)
    for kind, rows in kind_rows.items():
        table.add_detection(NONE_SCORE, kind, is_lesion, rows, none_score)
        table.add_share("non-lesions accepted", kind, rows, ~np.isin(decisions, SENT_TO_NONE))
    table.add_share("flagged malignant", "premalignant", labels == "premalignant", decisions == "malignant")
    return table.scores


class ScoreTable:
    """Collects scores over rows of one list of pictures, given by the group of each."""

    def __init__(self, groups: Sequence[str]) -> None:
        self._groups = np.asarray(groups)
        self.scores: list[Score] = []

    def add(self, metric: str, subset: str, rows: Mask, estimate: Callable[[Rows, Groups], Estimate]) -> None:
        """Score the chosen rows, given by their indices and groups, unless there are none."""
        chosen = np.flatnonzero(rows)
        if len(chosen):
            self.scores.append(Score(metric, subset, estimate(chosen, self._groups[chosen])))

    def add_share(self, metric: str, subset: str, rows: Mask, hits: Mask) -> None:
        """The share of hits among the chosen rows."""
        self.add(metric, subset, rows, lambda chosen, groups: bootstrap_share(hits[chosen], groups))

    def add_detection(self, name: str, subset: str, lesions: Mask, others: Mask, none_score: Floats) -> None:
        """How well a score tells other pictures from lesions: AUROC, AUPR and FPR@95, over the rows of both."""
        metrics = {"AUROC": auroc, "AUPR": average_precision, "FPR@95": false_positive_rate}
        for metric, measure in metrics.items():
            self.add(
                f"{name} {metric}",
                subset,
                lesions | others,
                lambda chosen, groups, measure=measure: bootstrap(measure(others[chosen], none_score[chosen]), groups),
            )


def _score_lesions(
    table: ScoreTable,
    subset: str,
    rows: Mask,
    is_malignant: Mask,
    malignant: Floats,
    decisions: npt.NDArray[np.str_],
) -> None:
    # As the tool answers: what it sends to none it has not flagged, whatever the probability.
    flagged = decisions == "malignant"

    def interval_of(metric: Callable[[Mask, Floats], Callable[[Rows], float]]) -> Callable[[Rows, Groups], Estimate]:
        return lambda chosen, groups: bootstrap(metric(is_malignant[chosen], malignant[chosen]), groups)

    if (rows & is_malignant).any() and (rows & ~is_malignant).any():
        table.add("AUROC", subset, rows, interval_of(auroc))
    table.add_share("sensitivity", subset, rows & is_malignant, flagged)
    table.add_share("specificity", subset, rows & ~is_malignant, ~flagged)
    table.add_share("accuracy", subset, rows, flagged == is_malignant)
    table.add("log loss", subset, rows, interval_of(log_loss))
    table.add("ECE", subset, rows, lambda *chosen: reflect(interval_of(expected_calibration_error)(*chosen)))
    table.add_share("lesions rejected as out of scope", subset, rows, decisions == "out_of_scope")
    table.add_share("lesions left uncertain", subset, rows, decisions == "uncertain")
    table.add_share("malignant lesions called benign", subset, rows & is_malignant, decisions == "benign")
    table.add_share("malignant lesions sent to none", subset, rows & is_malignant, np.isin(decisions, SENT_TO_NONE))


def _score_operating_point(
    table: ScoreTable,
    is_lesion: Mask,
    is_malignant: Mask,
    malignant: Floats,
    decisions: npt.NDArray[np.str_],
    thresholds: Thresholds,
) -> None:
    """What a flag, and the lack of one, is worth by prevalence; and what answering only the clearest lesions would gain."""
    flagged = decisions == "malignant"
    has_both = (is_lesion & is_malignant).any() and (is_lesion & ~is_malignant).any()
    for prevalence in PREVALENCES if has_both else ():
        for metric, measure, answers in ((PPV, positive_predictive_value, flagged), (NPV, negative_predictive_value, ~flagged)):
            if not (is_lesion & answers).any():
                continue  # where no lesion gets the answer, the answer's worth is undefined
            table.add(
                metric,
                f"prevalence {prevalence:.0%}",
                is_lesion,
                lambda chosen, groups, measure=measure, prevalence=prevalence: bootstrap(
                    measure(is_malignant[chosen], flagged[chosen], prevalence), groups
                ),
            )
    wrong = (malignant >= thresholds.malignant) != is_malignant
    clarity = distance_from_threshold(malignant, thresholds)
    table.add(
        "area under risk-coverage",
        "all",
        is_lesion,
        lambda chosen, groups: bootstrap(area_under_risk_coverage(wrong[chosen], clarity[chosen]), groups),
    )


def distance_from_threshold(malignant: Floats, thresholds: Thresholds) -> Floats:
    """How clear each answer is: distance of the probability from the threshold, in log-odds, [N]."""
    return np.abs(logit(np.clip(malignant, 1e-7, 1 - 1e-7)) - logit(thresholds.malignant))


def none_kind(example: Example) -> str:
    """The folder of a `none` picture, such as `photo` or `eczema`; empty for a lesion."""
    return example.path.parent.name if example.label == "none" else ""


def save_scores(scores: Sequence[Score], path: Path) -> None:
    """Write them as JSON."""
    path.write_text(json.dumps([dataclasses.asdict(score) for score in scores], indent=1) + "\n")


def load_scores(path: Path) -> list[Score]:
    """Inverse of `save_scores`."""
    return [Score(row["metric"], row["subset"], Estimate(**row["estimate"])) for row in json.loads(path.read_text())]


def format_scores(scores: Sequence[Score]) -> str:
    """A table for people."""
    lines = [f"{'metric':34} {'subset':34} {'value':>7}  {'95 % interval':17} {'n':>5}"]
    lines += [f"{score.metric:34} {score.subset:34} {_figures(score.estimate)}" for score in scores]
    return "\n".join(lines)


def _figures(estimate: Estimate) -> str:
    return f"{estimate.value:7.4f}  [{estimate.low:.4f}, {estimate.high:.4f}]  {estimate.n:5d}"
