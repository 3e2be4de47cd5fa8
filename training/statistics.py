"""Figures of merit with their intervals. Everything is computed on groups: pictures of one lesion are not independent."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

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
        return float(roc_auc_score(truth, scores[rows]))

    return metric


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
