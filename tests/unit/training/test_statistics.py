import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from training.statistics import (
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
    risk_coverage,
    share,
)


def test_interval_holds_the_true_share_and_narrows_with_n():
    rng = np.random.default_rng(3)
    small, large = rng.random(50) < 0.8, rng.random(2000) < 0.8

    few = bootstrap(share(small), [str(index) for index in range(50)])
    many = bootstrap(share(large), [str(index) for index in range(2000)])

    assert few.low <= 0.8 <= few.high
    assert many.low <= 0.8 <= many.high
    assert many.high - many.low < (few.high - few.low) / 3
    assert (few.n, many.n) == (50, 2000)


def test_pictures_of_one_lesion_are_drawn_together():
    hits = np.repeat(np.arange(20) % 2 == 0, 10)

    by_picture = bootstrap(share(hits), [str(index) for index in range(200)])
    by_lesion = bootstrap(share(hits), [str(index // 10) for index in range(200)])

    assert by_lesion.high - by_lesion.low > 2 * (by_picture.high - by_picture.low)


def test_auroc_of_a_perfect_a_reversed_and_an_undefined_case():
    truth = np.array([False, False, True, True])
    rows = np.arange(4)

    assert auroc(truth, np.array([0.1, 0.2, 0.8, 0.9]))(rows) == 1.0
    assert auroc(truth, np.array([0.9, 0.8, 0.2, 0.1]))(rows) == 0.0
    assert np.isnan(auroc(truth, np.array([0.1, 0.2, 0.8, 0.9]))(np.array([0, 1])))


def test_auroc_by_ranks_is_that_of_scikit_learn_with_ties():
    rng = np.random.default_rng(8)
    truth, scores = rng.random(200) < 0.3, rng.integers(0, 20, 200) / 20

    assert auroc(truth, scores)(np.arange(200)) == pytest.approx(roc_auc_score(truth, scores))


def test_log_loss_is_that_of_the_definition():
    value = log_loss(np.array([True, False]), np.array([0.8, 0.4]))(np.arange(2))

    assert value == pytest.approx(-(np.log(0.8) + np.log(0.6)) / 2)


def test_calibration_error_is_zero_when_shares_equal_probabilities_and_their_gap_otherwise():
    truth = np.arange(100) < 30

    assert expected_calibration_error(truth, np.full(100, 0.3))(np.arange(100)) == pytest.approx(0.0, abs=1e-12)
    assert expected_calibration_error(truth, np.full(100, 0.7))(np.arange(100)) == pytest.approx(0.4)


def test_the_interval_of_the_calibration_error_holds_the_true_one():
    """Each probability is too low by .02, so that is the true error; resampling adds noise, and noise adds error."""
    rng = np.random.default_rng(21)
    held = {"percentile": 0, "reflected": 0}
    for _ in range(10):
        probabilities = rng.uniform(0.0, 0.98, 2000)
        metric = expected_calibration_error(rng.random(2000) < probabilities + 0.02, probabilities)
        percentile = bootstrap(metric, [str(index) for index in range(2000)])
        held["percentile"] += percentile.low <= 0.02 <= percentile.high
        held["reflected"] += reflect(percentile).low <= 0.02 <= reflect(percentile).high

    assert held["reflected"] >= 8
    assert held["percentile"] <= 2


def test_a_share_of_none_or_all_is_not_certain():
    few, many = [str(index) for index in range(6)], [str(index) for index in range(300)]

    # With 0 of 6 the share may be .46, with 0 of 300 hardly .012.
    assert bootstrap_share(np.zeros(6, bool), few).high == pytest.approx(0.459, abs=1e-3)
    assert bootstrap_share(np.zeros(300, bool), many).high == pytest.approx(0.0122, abs=1e-4)
    assert bootstrap_share(np.ones(6, bool), few).low == pytest.approx(0.541, abs=1e-3)
    assert bootstrap_share(np.zeros(6, bool), ["one lesion"] * 6).high == pytest.approx(0.975)
    assert bootstrap_share(np.arange(300) < 30, many) == bootstrap(share(np.arange(300) < 30), many)


def test_fpr_at_95_counts_the_others_that_pass_where_95_of_100_pass():
    lesions, others = np.arange(100.0), np.array([10.0, 93.0, 94.5, 200.0])
    positive = np.repeat([False, True], [100, 4])

    metric = false_positive_rate(positive, np.concatenate([lesions, others]))

    # The 95 % quantile of 0 to 99 is 94.05.
    assert metric(np.arange(104)) == 0.5
    assert np.isnan(metric(np.arange(100)))


def test_average_precision_of_a_perfect_and_of_a_reversed_score():
    positive = np.array([False, False, True])

    assert average_precision(positive, np.array([0.1, 0.2, 0.9]))(np.arange(3)) == 1.0
    assert average_precision(positive, np.array([0.9, 0.8, 0.1]))(np.arange(3)) == pytest.approx(1 / 3)


def test_predictive_values_are_bayes():
    """Sensitivity .95 and specificity .90, as worked out by hand for three prevalences."""
    positive = np.repeat([True, False], [20, 10])
    flagged = np.repeat([True, False, True, False], [19, 1, 1, 9])
    rows = np.arange(30)

    values = [positive_predictive_value(positive, flagged, prevalence)(rows) for prevalence in (0.5, 0.07, 0.02)]

    assert [round(value, 3) for value in values] == [0.905, 0.417, 0.162]
    assert negative_predictive_value(positive, flagged, 0.5)(rows) == pytest.approx(0.9 / 0.95)
    assert np.isnan(positive_predictive_value(positive, flagged, 0.5)(np.arange(20)))


def test_risk_falls_where_the_clear_answers_are_right():
    wrong, clarity = np.array([True, False, False, True]), np.array([0.1, 3.0, 2.0, 1.0])

    coverage, risk = risk_coverage(wrong, clarity)

    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([0.0, 0.0, 1 / 3, 0.5])
    assert area_under_risk_coverage(wrong, clarity)(np.arange(4)) == pytest.approx(np.mean(risk))
