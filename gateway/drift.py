"""Drift: how far the scores that are answered lie from those of the version's reference, as population stability index.

PSI = sum over the bins of (given - expected) * ln(given / expected), the shares of the pictures in each: Jeffreys' divergence.
Of n pictures drawn from the very population that gave m reference pictures it is about (1/n + 1/m) times a chi-square variable
with one degree of freedom less than there are bins (Yurdakul and Naranjo, Journal of Risk Model Validation, 2020): with
few pictures it is large for no reason, so it is never shown without what chance alone would give.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from gateway import metrics
from serving.contract import NONE_SCORE_EDGES, PROBABILITY_EDGES
from serving.metadata import Histogram, ModelMetadata

HISTOGRAMS: Final[Mapping[str, str]] = {
    "malignant_probability": "dermserve_gateway_malignant_probability",
    "none_score": "dermserve_gateway_none_score",
}
"""Score -> the histogram of what was answered."""

SMOOTHING: Final = 0.5
"""Pictures added to every bin, of both sides: the logarithm of an empty one has no end (Jeffreys' prior)."""

FALSE_ALARMS: Final = 0.01
"""Share of looks at a population that has not changed in which PSI exceeds its noise."""


class Versions:
    """Puts the versions that answer, and their references, among the metrics."""

    def __init__(self) -> None:
        self._known: set[int] = set()

    def announce(self, metadata: ModelMetadata) -> None:
        """Once for each version of a process: a version never changes."""
        if metadata.version in self._known:
            return
        self._known.add(metadata.version)
        version = str(metadata.version)
        metrics.MODEL_INFO.labels(version, metadata.provenance.preset, metadata.provenance.config_sha256).set(1)
        # From the first answer on: a series that begins with its first one shows no increase.
        metrics.MALIGNANT_LOOKING_REJECTIONS.labels(version)
        reference = metadata.reference
        # Other bins than ours cannot be compared; the version answers all the same.
        if reference is None or reference.edges != (PROBABILITY_EDGES, NONE_SCORE_EDGES):
            return
        metrics.REFERENCE_PICTURES.labels(version).set(sum(reference.malignant.counts))
        for score, histogram in zip(HISTOGRAMS, (reference.malignant, reference.none_score), strict=True):
            for (above, edge), share in zip(_bins(histogram), shares(histogram.counts), strict=True):
                metrics.REFERENCE_SHARE.labels(score, version, above, edge).set(share)


def _bins(histogram: Histogram) -> Iterator[tuple[str, str]]:
    """Lower and upper edge of each, as Prometheus writes them."""
    return pairwise(map(floatToGoString, (-math.inf, *histogram.edges, math.inf)))


def shares(counts: Sequence[float]) -> list[float]:
    """Smoothed share of each bin."""
    total = sum(counts) + SMOOTHING * len(counts)
    return [(count + SMOOTHING) / total for count in counts]


def psi(expected: Sequence[float], given: Sequence[float]) -> float:
    """Population stability index of two lists of shares."""
    return sum((there - here) * math.log(there / here) for here, there in zip(expected, given, strict=True))


def noise(bins: int, pictures: float, reference_pictures: float) -> float:
    """What PSI exceeds by chance, in `FALSE_ALARMS` of the looks."""
    # Wilson and Hilferty's approximation of the chi-square quantile: within 0.3 % from five degrees of freedom on.
    freedom = bins - 1
    spread = 2 / (9 * freedom)
    quantile = freedom * (1 - spread + NormalDist().inv_cdf(1 - FALSE_ALARMS) * math.sqrt(spread)) ** 3
    return quantile * (1 / pictures + 1 / reference_pictures)


def derived() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
    """The families that `derive` fills."""
    labels = ["score", "model_version"]
    return (
        GaugeMetricFamily(
            "dermserve_gateway_drift_psi",
            "Population stability index of all that was answered since the start against the version's reference.",
            labels=labels,
        ),
        GaugeMetricFamily("dermserve_gateway_drift_pictures", "Pictures that the index is of.", labels=labels),
        GaugeMetricFamily(
            "dermserve_gateway_drift_noise",
            "What the index of so many pictures exceeds by chance in one of a hundred looks.",
            labels=labels,
        ),
    )


def derive(families: Iterable[Metric]) -> Iterable[Metric]:
    """Drift since the start, from metrics that are summed up over all processes: whichever of them is asked, it is the same."""
    by_name = {family.name: family for family in families}
    expected, reference_pictures = _reference(by_name)
    indices, pictures, noises = derived()
    for (score, version), share_of in expected.items():
        given = _counts(by_name, HISTOGRAMS[score], version)
        total = sum(given)
        if total:
            labels = [score, version]
            indices.add_metric(labels, psi(list(share_of.values()), shares(given)))
            pictures.add_metric(labels, total)
            noises.add_metric(labels, noise(len(given), total, reference_pictures[version]))
    return indices, pictures, noises


def _reference(by_name: Mapping[str, Metric]) -> tuple[dict[tuple[str, str], dict[float, float]], dict[str, float]]:
    """Share by upper edge, of each score and version; and how many pictures they are of, by version."""
    expected: dict[tuple[str, str], dict[float, float]] = {}
    for sample in _samples(by_name, "dermserve_gateway_reference_share"):
        of_score = expected.setdefault((sample.labels["score"], sample.labels["model_version"]), {})
        of_score[float(sample.labels["le"])] = sample.value
    sizes = {
        sample.labels["model_version"]: sample.value for sample in _samples(by_name, "dermserve_gateway_reference_pictures")
    }
    return {key: dict(sorted(of_score.items())) for key, of_score in expected.items()}, sizes


def _counts(by_name: Mapping[str, Metric], name: str, version: str) -> list[float]:
    """Pictures in each bin, of a histogram, which counts those of all lower bins with each."""
    up_to = {
        float(sample.labels["le"]): sample.value
        for sample in _samples(by_name, name)
        if sample.name.endswith("_bucket") and sample.labels["model_version"] == version
    }
    return [higher - lower for lower, higher in pairwise([0.0, *(up_to[edge] for edge in sorted(up_to))])]


def _samples(by_name: Mapping[str, Metric], name: str) -> Sequence[Sample]:
    return by_name[name].samples if name in by_name else ()
