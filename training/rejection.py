"""The none score: how far a picture's statistics at every stage of the network lie from those of lesions.

Each stage's pooled features are modelled by one Gaussian of the training lesions, in the space of its first principal
components (Lee et al., arXiv 1807.03888), with the energy outside that space as a second distance (Wang et al., arXiv
2203.10807). Early stages are used as well as the last: a lesion network's last layer forgets what is not needed to tell lesions
apart (Sastry and Oore, arXiv 1912.12510). The distances are weighed by a logistic regression against pictures of other kinds
(outlier exposure: Hendrycks et al., arXiv 1812.04606); how they are weighed is chosen on kinds left out in turn, and compared
there with the scores of `training.none_scores`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from training import none_scores
from training.model import STAGES

Floats = npt.NDArray[np.float32]
Features = Mapping[str, Floats]
"""Stage -> pooled features [N, channels]."""

EMBEDDING = "conv5"
"""The last stage, on which the scores of the literature are defined."""

COMPONENTS = 96
"""Principal components a stage. Each stage gives so many whitened components and two distances."""

INVERSE_PENALTY = 0.01
"""scikit-learn's C, on standardised columns: a few hundred outliers must not buy hundreds of free weights."""


@dataclass(frozen=True)
class StageGaussian:
    """One stage's lesions: mean [C], whitening projection [C, COMPONENTS], orthonormal basis scaled back by `spread`."""

    mean: Floats
    projection: Floats
    spread: Floats
    residual: float

    @classmethod
    def fit(cls, features: Floats) -> "StageGaussian":
        """Fit to lesions [N, C]."""
        mean = features.mean(axis=0)
        variances, directions = np.linalg.eigh(np.cov((features - mean).T.astype(np.float64)))
        variances, directions = variances[::-1], directions[:, ::-1]
        spread = np.sqrt(variances[:COMPONENTS] + 1e-12)
        return cls(
            mean=mean.astype(np.float32),
            projection=(directions[:, :COMPONENTS] / spread).astype(np.float32),
            spread=spread.astype(np.float32),
            residual=float(max(variances[COMPONENTS:].sum(), 1e-12)),
        )

    def columns(self, features: tf.Tensor) -> tf.Tensor:
        """Whitened components, log Mahalanobis distance, log residual energy: [N, C] -> [N, COMPONENTS + 2]."""
        centred = features - self.mean
        whitened = tf.matmul(centred, self.projection)
        distance = tf.reduce_mean(tf.square(whitened), axis=1, keepdims=True)
        energy = tf.reduce_sum(tf.square(centred), axis=1, keepdims=True)
        inside = tf.reduce_sum(tf.square(whitened * self.spread), axis=1, keepdims=True)
        residual = tf.nn.relu(energy - inside) / self.residual
        # A log of zero would be the score of a picture that equals the mean.
        return tf.concat([whitened, tf.math.log(distance + 1e-6), tf.math.log(residual + 1e-6)], axis=1)


Stages = Mapping[str, StageGaussian]


@dataclass(frozen=True)
class Rejection:
    """Pooled features of all stages -> none score, higher = further from lesions."""

    method: str
    stages: Stages
    coefficients: Floats
    intercept: float

    def score(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Shape [N], in the graph as well as outside."""
        return tf.linalg.matvec(_columns(self.stages, features), self.coefficients) + self.intercept

    def save(self, path: Path) -> None:
        """Write an .npz."""
        arrays = {f"{stage}/{name}": value for stage, gaussian in self.stages.items() for name, value in vars(gaussian).items()}
        np.savez(path, method=self.method, coefficients=self.coefficients, intercept=self.intercept, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Rejection":
        """Inverse of `save`."""
        with np.load(path) as stored:
            stages = {
                stage: StageGaussian(
                    stored[f"{stage}/mean"],
                    stored[f"{stage}/projection"],
                    stored[f"{stage}/spread"],
                    float(stored[f"{stage}/residual"]),
                )
                for stage in STAGES
            }
            return cls(str(stored["method"]), stages, stored["coefficients"], float(stored["intercept"]))


def _columns(stages: Stages, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
    return tf.concat([gaussian.columns(features[stage]) for stage, gaussian in stages.items()], axis=1)


def _is_distance() -> npt.NDArray[np.bool_]:
    """Which columns are distances, the others being whitened components."""
    return np.tile(np.arange(COMPONENTS + 2) >= COMPONENTS, len(STAGES))


def _mean_distance(lesions: Floats, outliers: Floats) -> tuple[Floats, float]:
    """Sum of the standardised distances; needs no outliers."""
    del outliers
    return _weigh(lesions, _is_distance().astype(np.float64), 0.0)


def _weighed_distances(lesions: Floats, outliers: Floats) -> tuple[Floats, float]:
    """Logistic regression on the distances alone."""
    return _regress(lesions, outliers, _is_distance(), inverse_penalty=1.0)


def _exposure(lesions: Floats, outliers: Floats) -> tuple[Floats, float]:
    """Logistic regression on distances and components."""
    return _regress(lesions, outliers, np.ones_like(_is_distance()), INVERSE_PENALTY)


METHODS = {
    "sum of stage distances": _mean_distance,
    "weighed stage distances": _weighed_distances,
    "outlier exposure on stage statistics": _exposure,
}
WITHOUT_OUTLIERS = "sum of stage distances"


def _regress(lesions: Floats, outliers: Floats, used: npt.NDArray[np.bool_], inverse_penalty: float) -> tuple[Floats, float]:
    mean, scale = lesions.mean(axis=0), lesions.std(axis=0)
    columns = (np.concatenate([lesions, outliers]) - mean) / scale
    truth = np.repeat([0, 1], [len(lesions), len(outliers)])
    model = LogisticRegression(C=inverse_penalty, class_weight="balanced", max_iter=2000).fit(columns[:, used], truth)
    weights = np.zeros(len(used))
    weights[used] = model.coef_[0]
    return _weigh(lesions, weights, float(model.intercept_[0]))


def _weigh(lesions: Floats, weights: npt.NDArray[np.float64], intercept: float) -> tuple[Floats, float]:
    """Weights of standardised columns -> coefficients of the columns as they are."""
    mean, scale = lesions.mean(axis=0), lesions.std(axis=0)
    coefficients = weights / scale
    return coefficients.astype(np.float32), float(intercept - (coefficients * mean).sum())


def fit_stages(lesions: Features) -> Stages:
    """A Gaussian of the lesions for every stage: what all methods share, and nearly all the time that a fit takes."""
    return {stage: StageGaussian.fit(lesions[stage]) for stage in STAGES}


def fit_method(method: str, stages: Stages, lesions: Features, outliers: Features) -> Rejection:
    """One of `METHODS`: the stages' statistics of lesions, weighed against those of outliers."""
    columns = (_columns(stages, part).numpy() for part in (lesions, outliers))
    return Rejection(method, stages, *METHODS[method](*columns))


@dataclass(frozen=True)
class LeftOut:
    """How a method does on a kind it has never seen."""

    method: str
    kind: str
    auroc: float
    aupr: float
    false_positive_rate: float
    n: int


def fit(
    lesions: Features, diagnoses: Sequence[str], outliers: Features, kinds: Sequence[str], val_lesions: Features
) -> tuple[Rejection, list[LeftOut]]:
    """Fit every method with each kind left out in turn, then the best of ours with all kinds.

    Args:
        lesions: of the training split, followed by augmented copies.
        diagnoses: of the lesions as they are; the scores of the literature are fitted to these alone.
        outliers: pictures that are no lesions, of the training split. With fewer than two kinds nothing can be left out, and
            the score that needs none of them is taken.
        kinds: for each outlier its kind.
        val_lesions: the lesions that left-out kinds are compared with.

    Returns:
        The rejection with the best mean AUROC over left-out kinds, and what each method reached.
    """
    stages = fit_stages(lesions)
    if len(set(kinds)) < 2:
        return fit_method(WITHOUT_OUTLIERS, stages, lesions, outliers), []
    kinds = np.asarray(kinds)
    results = [
        _left_out(method, kind, of_lesions, of_kind)
        for method in METHODS
        for kind, (of_lesions, of_kind) in score_unseen(method, stages, lesions, outliers, kinds, val_lesions).items()
    ]
    results += _others_left_out(lesions, diagnoses, outliers, kinds, val_lesions)
    best = max(METHODS, key=lambda method: mean_auroc(results, method))
    return fit_method(best, stages, lesions, outliers), results


def score_unseen(
    method: str, stages: Stages, lesions: Features, outliers: Features, kinds: npt.NDArray[np.str_], others: Features
) -> dict[str, tuple[Floats, Floats]]:
    """For each kind the none scores of other lesions and of its pictures, by a fit that has seen no picture of the kind."""
    of_lesions, of_outliers, of_others = (_columns(stages, part).numpy() for part in (lesions, outliers, others))
    scores = {}
    for kind in np.unique(kinds):
        coefficients, intercept = METHODS[method](of_lesions, of_outliers[kinds != kind])
        scores[str(kind)] = (of_others @ coefficients + intercept, of_outliers[kinds == kind] @ coefficients + intercept)
    return scores


def mean_auroc(results: Sequence[LeftOut], method: str) -> float:
    """Over the kinds that were left out in turn."""
    return float(np.mean([result.auroc for result in results if result.method == method]))


def _others_left_out(
    lesions: Features, diagnoses: Sequence[str], outliers: Features, kinds: npt.NDArray[np.str_], others: Features
) -> list[LeftOut]:
    """The scores of the literature; they see no outlier, so every kind is left out."""
    embeddings = lesions[EMBEDDING][: len(diagnoses)].astype(np.float64)
    results = []
    for method, score in none_scores.fit_all(embeddings, np.asarray(diagnoses)).items():
        of_lesions, of_outliers = (score(features[EMBEDDING].astype(np.float64)) for features in (others, outliers))
        results += [_left_out(method, str(kind), of_lesions, of_outliers[kinds == kind]) for kind in np.unique(kinds)]
    return results


def _left_out(method: str, kind: str, lesions: Floats, outliers: Floats) -> LeftOut:
    truth = np.repeat([0, 1], [len(lesions), len(outliers)])
    scores = np.concatenate([lesions, outliers])
    return LeftOut(
        method=method,
        kind=kind,
        auroc=float(roc_auc_score(truth, scores)),
        aupr=float(average_precision_score(truth, scores)),
        false_positive_rate=float((outliers < np.quantile(lesions, 0.95)).mean()),
        n=len(outliers),
    )
