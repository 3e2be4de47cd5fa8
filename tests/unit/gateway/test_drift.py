import dataclasses
import itertools

import numpy as np
import pytest
from prometheus_client import REGISTRY
from scipy.stats import chi2

from gateway import drift, metrics
from gateway.drift import Versions, noise, psi, shares
from serving.metadata import Histogram, Reference
from tests.metadata import METADATA, NONE_SCORES_LIKE, VALIDATION_LIKE, with_reference

DRAWS = 4000
_versions = itertools.count(9_000)


@pytest.fixture
def version():
    """A number that no other test has put among the metrics."""
    return next(_versions)


def derived(version):
    """Values of a version by the family's name and the score."""
    return {
        (sample.name.removeprefix("dermserve_gateway_drift_"), sample.labels["score"]): sample.value
        for family in drift.derive(REGISTRY.collect())
        for sample in family.samples
        if sample.labels["model_version"] == str(version)
    }


def test_the_index_of_the_same_shares_is_zero_and_of_others_what_the_formula_says():
    assert psi([0.2, 0.8], [0.2, 0.8]) == 0
    assert psi([0.5, 0.5], [0.25, 0.75]) == pytest.approx(0.25 * np.log(2) + 0.25 * np.log(1.5))


def test_an_empty_bin_has_an_end():
    assert shares([0, 9]) == [0.05, 0.95]
    assert np.isfinite(psi(shares([0, 100]), shares([100, 0])))


@pytest.mark.parametrize("bins", [6, 12, 30])
def test_the_noise_is_the_quantile_of_the_chi_square_distribution(bins):
    assert noise(bins, 1000, 2721) == pytest.approx(chi2.ppf(0.99, bins - 1) * (1 / 1000 + 1 / 2721), rel=3e-3)


@pytest.mark.parametrize("counts", [VALIDATION_LIKE, NONE_SCORES_LIKE])
@pytest.mark.parametrize("pictures", [100, 1000, 10_000])
def test_a_population_that_has_not_changed_seldom_exceeds_the_noise(counts, pictures):
    """The reference is a draw as well: so is what it is compared with."""
    rng = np.random.default_rng(7)
    population = np.array(counts) / sum(counts)
    references, given = rng.multinomial(sum(counts), population, DRAWS), rng.multinomial(pictures, population, DRAWS)

    indices = [psi(shares(here), shares(there)) for here, there in zip(references, given, strict=True)]

    alarms = np.mean(np.array(indices) > noise(len(counts), pictures, sum(counts)))
    assert 0.002 < alarms < 0.02


def test_with_few_pictures_the_index_is_large_for_no_reason():
    """What a rule of thumb such as 0.1 would make of it."""
    rng = np.random.default_rng(7)
    population = np.array(VALIDATION_LIKE) / sum(VALIDATION_LIKE)

    of_fifty = [psi(shares(VALIDATION_LIKE), shares(rng.multinomial(50, population))) for _ in range(500)]

    assert np.mean(np.array(of_fifty) > 0.1) > 0.5


def test_a_population_that_has_changed_is_seen_at_a_thousand_pictures():
    """Every score one bin higher."""
    rng = np.random.default_rng(7)
    population = np.array(VALIDATION_LIKE) / sum(VALIDATION_LIKE)

    given = rng.multinomial(1000, np.roll(population, 1))

    assert psi(shares(VALIDATION_LIKE), shares(given)) > 5 * noise(12, 1000, sum(VALIDATION_LIKE))


def test_what_is_answered_is_compared_bin_by_bin_with_the_reference(version):
    Versions().announce(with_reference(version=version))
    # One in each bin, at its upper edge where it has one: an edge belongs to the bin below it.
    for value in (*metrics.PROBABILITY_BUCKETS, 1.0):
        metrics.MALIGNANT_PROBABILITY.labels(str(version)).observe(value)
    for value in (-14.0, -14.0, 3.0):
        metrics.NONE_SCORE.labels(str(version)).observe(value)

    found = derived(version)

    assert found["psi", "malignant_probability"] == pytest.approx(psi(shares(VALIDATION_LIKE), shares([1] * 12)))
    assert found["pictures", "malignant_probability"] == 12
    assert found["noise", "malignant_probability"] == noise(12, 12, sum(VALIDATION_LIKE))
    assert found["psi", "none_score"] == pytest.approx(psi(shares(NONE_SCORES_LIKE), shares([2, *[0] * 9, 1, 0])))
    assert found["pictures", "none_score"] == 3


def test_two_versions_have_each_its_own(version):
    other = next(_versions)
    for number, probability in ((version, 0.0001), (other, 0.99)):
        Versions().announce(with_reference(version=number))
        metrics.MALIGNANT_PROBABILITY.labels(str(number)).observe(probability)

    for number, place in ((version, 0), (other, 11)):
        given = shares([int(bin_ == place) for bin_ in range(12)])
        assert derived(number)["psi", "malignant_probability"] == pytest.approx(psi(shares(VALIDATION_LIKE), given))


def test_before_the_first_answer_there_is_no_drift(version):
    Versions().announce(with_reference(version=version))

    assert derived(version) == {}


def test_a_version_without_a_reference_or_with_other_bins_has_no_drift(version):
    other = Reference("val", Histogram((0.5,), (3, 4)), Histogram((0.0,), (3, 4)))
    for metadata in (METADATA, dataclasses.replace(METADATA, reference=other)):
        Versions().announce(dataclasses.replace(metadata, version=version))
    metrics.MALIGNANT_PROBABILITY.labels(str(version)).observe(0.5)

    assert derived(version) == {}
    labels = {"model_version": str(version), "preset": "tiny", "config_sha256": "0" * 64}
    assert REGISTRY.get_sample_value("dermserve_gateway_model_info", labels) == 1


def test_the_shares_that_are_exported_are_those_of_the_reference(version):
    Versions().announce(with_reference(version=version))

    labels = {"score": "malignant_probability", "model_version": str(version), "above": "-Inf", "le": "0.0003"}
    assert REGISTRY.get_sample_value("dermserve_gateway_reference_share", labels) == pytest.approx(435.5 / (2721 + 6))
    sizes = {"model_version": str(version)}
    assert REGISTRY.get_sample_value("dermserve_gateway_reference_pictures", sizes) == 2721
