"""Figures of merit with their intervals. Everything is computed on groups: pictures of one lesion are not independent."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from serving.metadata import Estimate

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

RESAMPLES = 1000
CALIBRATION_BINS = 15


def bootstrap(metric: Callable[[Rows], float], groups: Sequence[str], seed: int = 1) -> Estimate:
    """Percentile interval (95 %) over resampled groups (Efron and Tibshirani, 1993, with clusters as units).

    Args:
        metric: figure of the given rows; NaN where a resample does not define it.
        groups: for each row, the lesion it shows.
        seed: of the resampling.

    Returns:
        The figure of all rows, its interval and the number of rows.
    """
    _, unit = np.unique(np.asarray(groups), return_inverse=True)
    order = np.argsort(unit, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(unit))[:-1])
    rng = np.random.default_rng(seed)
    value = metric(np.arange(len(unit)))
    samples = [
        metric(np.concatenate([members[index] for index in rng.integers(len(members), size=len(members))]))
        for _ in range(RESAMPLES)
    ]
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    # With few rows the resamples can lie on one side of the figure; an interval that misses its figure misleads.
    return Estimate(float(value), float(min(low, value)), float(max(high, value)), len(unit))


def reflect(estimate: Estimate) -> Estimate:
    """The basic bootstrap interval (Davison and Hinkley, 1997) of a figure that cannot be negative.

    For a figure that resampling makes larger, as it does the calibration error: a percentile interval lies too high there.
    """
    low, high = 2 * estimate.value - estimate.high, 2 * estimate.value - estimate.low
    return Estimate(estimate.value, max(low, 0.0), high, estimate.n)


def bootstrap_share(hits: npt.NDArray[np.bool_], groups: Sequence[str]) -> Estimate:
    """The share of hits with its interval.

    Where all rows agree, every resample agrees too, and an interval without width would claim certainty: there it is that of
    Clopper and Pearson (1934), with groups as trials.

    Args:
        hits: [N].
        groups: for each row, the lesion it shows.
    """
    estimate = bootstrap(share(hits), groups)
    if 0.0 < estimate.value < 1.0:
        return estimate
    edge = 0.025 ** (1 / len(set(groups)))
    low, high = (0.0, 1.0 - edge) if estimate.value == 0.0 else (edge, 1.0)
    return Estimate(estimate.value, low, high, estimate.n)


def share(hits: npt.NDArray[np.bool_]) -> Callable[[Rows], float]:
    """Metric: the share of hits, such as sensitivity where all rows are malignant."""
    return lambda rows: float(hits[rows].mean())


def auroc(positive: npt.NDArray[np.bool_], scores: Floats) -> Callable[[Rows], float]:
    """Metric: area under the ROC curve."""

    def metric(rows: Rows) -> float:
        truth = positive[rows]
        if truth.all() or not truth.any():
            return float("nan")
        # By ranks (Mann and Whitney, 1947): scikit-learn's checks alone take longer, a thousand times for each interval.
        ranks, count = rankdata(scores[rows]), int(truth.sum())
        return float((ranks[truth].sum() - count * (count + 1) / 2) / (count * (len(truth) - count)))

    return metric


def average_precision(positive: npt.NDArray[np.bool_], scores: Floats) -> Callable[[Rows], float]:
    """Metric: area under the precision-recall curve, as average precision."""
    return lambda rows: float(average_precision_score(positive[rows], scores[rows])) if positive[rows].any() else float("nan")


def false_positive_rate(positive: npt.NDArray[np.bool_], scores: Floats) -> Callable[[Rows], float]:
    """Metric: FPR@95, the share of positives (other pictures) that a threshold lets pass which lets 95 % of the others pass."""

    def metric(rows: Rows) -> float:
        truth, values = positive[rows], scores[rows]
        if truth.all() or not truth.any():
            return float("nan")
        return float((values[truth] <= np.quantile(values[~truth], 0.95)).mean())

    return metric


def positive_predictive_value(
    positive: npt.NDArray[np.bool_], flagged: npt.NDArray[np.bool_], prevalence: float
) -> Callable[[Rows], float]:
    """Metric: share of positives among the flagged where so many are positive, by Bayes from sensitivity and specificity."""

    def metric(rows: Rows) -> float:
        sensitivity, specificity = _sensitivity_and_specificity(positive[rows], flagged[rows])
        right, wrong = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
        return right / (right + wrong) if right + wrong > 0 else float("nan")

    return metric


def negative_predictive_value(
    positive: npt.NDArray[np.bool_], flagged: npt.NDArray[np.bool_], prevalence: float
) -> Callable[[Rows], float]:
    """Metric: share of negatives among those not flagged where so many are positive: the same with both classes exchanged."""
    return positive_predictive_value(~positive, ~flagged, 1 - prevalence)


def _sensitivity_and_specificity(positive: npt.NDArray[np.bool_], flagged: npt.NDArray[np.bool_]) -> tuple[float, float]:
    if positive.all() or not positive.any():
        return float("nan"), float("nan")
    return float(flagged[positive].mean()), float((~flagged[~positive]).mean())


def risk_coverage(wrong: npt.NDArray[np.bool_], clarity: Floats) -> tuple[Floats, Floats]:
    """Share answered and share wrong among these, if only the clearest are answered, from one to all: [N], [N].

    Geifman and El-Yaniv, arXiv 1705.08500.
    """
    count = np.arange(1, len(wrong) + 1)
    return count / len(wrong), np.cumsum(wrong[np.argsort(-clarity, kind="stable")]) / count


def area_under_risk_coverage(wrong: npt.NDArray[np.bool_], clarity: Floats) -> Callable[[Rows], float]:
    """Metric: mean risk over all coverages."""
    return lambda rows: float(risk_coverage(wrong[rows], clarity[rows])[1].mean())


def log_loss(positive: npt.NDArray[np.bool_], probabilities: Floats) -> Callable[[Rows], float]:
    """Metric: mean negative log likelihood, in nats."""
    right = np.clip(np.where(positive, probabilities, 1 - probabilities), 1e-7, 1.0)
    return lambda rows: float(-np.log(right[rows]).mean())


def expected_calibration_error(positive: npt.NDArray[np.bool_], probabilities: Floats) -> Callable[[Rows], float]:
    """Metric: ECE over 15 bins of equal width (Guo et al., arXiv 1706.04599), of the malignant probability."""
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gap = positive - probabilities

    def metric(rows: Rows) -> float:
        gaps = np.bincount(bins[rows], weights=gap[rows], minlength=CALIBRATION_BINS)
        return float(np.abs(gaps).sum() / len(rows))

    return metric
