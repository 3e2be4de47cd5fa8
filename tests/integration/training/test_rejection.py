import numpy as np
import pytest

from training import rejection
from training.calibrate import FittedTo, apply_platt, choose_thresholds, fit_platt, none_threshold, sparing_threshold
from training.evaluate import decide_all
from training.model import STAGES
from training.rejection import Rejection, fit_method, fit_stages


def features(rng, count, shift=0.0):
    """Pooled features with a covariance, each stage of the network's width."""
    return {
        stage: (rng.normal(size=(count, 4 * width)) * np.linspace(2, 0.1, 4 * width) + shift).astype(np.float32)
        for stage, (width, _, _) in STAGES.items()
    }


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(7)
    lesions, outliers = features(rng, 600), features(rng, 60, shift=0.6)
    kinds = ["photo"] * 30 + ["eczema"] * 30
    return rejection.fit(lesions, ["nv", "mel", "bkl"] * 200, outliers, kinds, features(rng, 200))


def test_a_kind_never_seen_scores_higher_than_lesions(fitted):
    model, left_out = fitted
    rng = np.random.default_rng(8)

    lesions, others = model.score(features(rng, 100)).numpy(), model.score(features(rng, 100, shift=0.6)).numpy()

    assert np.median(others) > np.quantile(lesions, 0.95)
    assert {result.kind for result in left_out} == {"photo", "eczema"}
    methods = {result.method for result in left_out}
    assert methods > set(rejection.METHODS)
    assert len(methods - set(rejection.METHODS)) >= 6
    assert model.method == max(rejection.METHODS, key=lambda method: rejection.mean_auroc(left_out, method))


def test_without_outliers_the_score_falls_back_to_distances():
    rng = np.random.default_rng(9)
    nothing = {stage: rows[:0] for stage, rows in features(rng, 1).items()}

    model, left_out = rejection.fit(features(rng, 600), ["nv"] * 600, nothing, [], features(rng, 50))

    assert model.method == rejection.WITHOUT_OUTLIERS
    assert left_out == []
    assert model.score(features(rng, 50, shift=1.0)).numpy().min() > np.median(model.score(features(rng, 50)).numpy())


def test_a_saved_rejection_scores_the_same(fitted, tmp_path):
    model, _ = fitted
    pictures = features(np.random.default_rng(10), 20)

    model.save(tmp_path / "rejection.npz")

    np.testing.assert_array_equal(Rejection.load(tmp_path / "rejection.npz").score(pictures), model.score(pictures))


def test_platt_recovers_a_known_map():
    rng = np.random.default_rng(11)
    logits = rng.normal(0, 2, 20_000).astype(np.float32)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * logits - 1.0)))).astype(np.int64)

    calibration = fit_platt(logits, labels)

    assert calibration.slope == pytest.approx(0.5, abs=0.05)
    assert calibration.intercept == pytest.approx(-1.0, abs=0.08)
    assert apply_platt(calibration, logits).mean() == pytest.approx(labels.mean(), abs=1e-3)


def test_thresholds_keep_sensitivity_and_the_ceiling_on_rejected_malignant_lesions():
    rng = np.random.default_rng(12)
    truth = rng.random(5000) < 0.3
    malignant = 1 / (1 + np.exp(-rng.normal(np.where(truth, 1.5, -1.5), 1.0)))
    none_score = rng.normal(size=5000)

    none = sparing_threshold(none_score, truth, np.repeat(["a", "b"], 2500))
    thresholds = choose_thresholds(malignant, truth, none)
    decisions = decide_all(malignant, none_score, thresholds)

    assert (malignant[truth] >= thresholds.malignant).mean() == pytest.approx(0.95, abs=0.002)
    assert np.isin(decisions[truth], ("out_of_scope", "uncertain")).mean() <= 0.02
    assert thresholds.uncertain_low < thresholds.malignant < thresholds.uncertain_high


def test_no_source_is_turned_away_more_than_another():
    rng = np.random.default_rng(13)
    sources = np.repeat(["common", "rare", "too few to tell"], [4900, 200, 5])
    none_score = rng.normal(np.where(sources == "common", 0.0, 1.0))
    none_score[-1] = 50.0

    none = sparing_threshold(none_score, rng.random(5105) < 0.1, sources)

    assert (none_score[sources == "rare"] >= none).mean() == pytest.approx(0.02, abs=0.006)
    assert none < 5.0


def test_no_source_loses_more_malignant_lesions_than_another():
    rng = np.random.default_rng(14)
    sources, truth = np.repeat(["common", "rare"], [4500, 500]), rng.random(5000) < 0.2
    none_score = rng.normal(np.where((sources == "rare") & truth, 2.0, 0.0))

    none = sparing_threshold(none_score, truth, sources)

    assert (none_score[(sources == "rare") & truth] >= none).mean() <= 0.02


def test_the_none_threshold_spares_lesions_as_far_as_unseen_kinds_are_still_turned_away(fitted):
    """Kinds that lie far away leave room above the lesions; kinds among the lesions leave none."""
    rng = np.random.default_rng(15)
    model, _ = fitted

    def threshold(shift):
        known = FittedTo(
            lesions=features(rng, 600),
            sources=np.repeat("clinic", 600),
            outliers=features(rng, 80, shift),
            kinds=np.tile(np.repeat(["photo", "eczema"], 10), 4),
            val=features(rng, 200),
            val_sources=np.repeat("clinic", 200),
            val_is_malignant=np.arange(200) < 100,
        )
        chosen = fit_method(model.method, fit_stages(known.lesions), known.lesions, known.outliers)
        scores = chosen.score(known.val).numpy().astype(np.float64)
        return none_threshold(chosen, known), sparing_threshold(scores, known.val_is_malignant, known.val_sources)

    far, far_sparing = threshold(1.5)
    near, near_sparing = threshold(0.0)

    assert far > far_sparing
    assert near == near_sparing


def test_what_a_none_score_was_fitted_to_is_kept(tmp_path):
    rng = np.random.default_rng(16)
    known = FittedTo(
        lesions=features(rng, 4),
        sources=np.array(["a", "b"] * 2),
        outliers=features(rng, 2),
        kinds=np.array(["photo", "tinea"]),
        val=features(rng, 3),
        val_sources=np.array(["a", "b", "b"]),
        val_is_malignant=np.array([True, False, True]),
    )

    known.save(tmp_path / "features.npz")

    kept = FittedTo.load(tmp_path / "features.npz")
    assert np.array_equal(kept.val_is_malignant, known.val_is_malignant)
    assert kept.kinds.tolist() == ["photo", "tinea"]
    assert np.array_equal(kept.outliers["conv3"], known.outliers["conv3"])
