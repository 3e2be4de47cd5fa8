import threading

import numpy as np
import pytest
from prometheus_client import REGISTRY

from gateway.canary import MAX_SHADOWED, CanaryPredictor
from gateway.errors import InvalidModelAnswer, ModelServerUnavailable
from gateway.predictor import Prediction
from tests.metadata import METADATA


class Version:
    """A predictor whose one version answers the same for every picture, or fails."""

    def __init__(self, version, malignant=0.1, error=None, metadata_error=None):
        self.prediction = Prediction(malignant, 0.0, np.zeros((7, 7), np.float32), version)
        self.error, self.metadata_error = error, metadata_error
        self.asked = 0
        self.batches = []

    def predict(self, image):
        self.asked += 1
        if self.error:
            raise self.error
        return self.prediction

    def predict_batch(self, images):
        self.batches.append(len(images))
        if self.error:
            raise self.error
        return [self.prediction] * len(images)

    def metadata(self, version):
        if self.metadata_error:
            raise self.metadata_error
        return METADATA

    def live_metadata(self, timeout_s=None):
        return METADATA


def pictures(count):
    return list(np.random.default_rng(3).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8))


def counted(name, **labels):
    return REGISTRY.get_sample_value(f"dermserve_gateway_{name}_total", labels) or 0.0


def compared():
    """How often each pair of labels was counted, and how many differences of probability were."""
    samples = [sample for family in REGISTRY.collect() for sample in family.samples]
    pairs = {
        (sample.labels["label"], sample.labels["canary_label"]): sample.value
        for sample in samples
        if sample.name == "dermserve_gateway_shadow_outcomes_total"
    }
    return pairs, sum(s.value for s in samples if s.name == "dermserve_gateway_shadow_probability_difference_count")


def test_a_share_of_the_pictures_is_answered_by_the_canary_and_each_always_by_the_same():
    predictor = CanaryPredictor(Version(1), Version(2), canary_share=0.3, shadow_share=0.0)
    asked = pictures(200)

    answers = [predictor.predict(picture).model_version for picture in asked]

    assert 40 <= answers.count(2) <= 80
    assert [predictor.predict(picture.copy()).model_version for picture in asked[:20]] == answers[:20]


def test_the_canarys_metadata_are_kept_with_its_answer():
    """In between it may be unloaded; its answer must still be read with its own thresholds."""
    stable = Version(1, metadata_error=InvalidModelAnswer("unloaded"))
    predictor = CanaryPredictor(stable, Version(2), canary_share=1.0, shadow_share=0.0)

    version = predictor.predict(pictures(1)[0]).model_version

    assert (version, predictor.metadata(version)) == (2, METADATA)


@pytest.mark.parametrize(
    "canary", [Version(2, error=ModelServerUnavailable("x")), Version(2, metadata_error=InvalidModelAnswer("x"))]
)
def test_a_canary_that_fails_or_has_no_metadata_answers_nobody_and_costs_nobody_the_answer(canary):
    predictor = CanaryPredictor(Version(1), canary, canary_share=1.0, shadow_share=0.0)
    before = counted("canary_fallbacks")

    assert [predictor.predict(picture).model_version for picture in pictures(3)] == [1, 1, 1]
    assert counted("canary_fallbacks") == before + 3


def test_a_stable_version_that_fails_is_not_replaced_by_the_canary():
    predictor = CanaryPredictor(Version(1, error=ModelServerUnavailable("x")), Version(2), canary_share=0.0, shadow_share=1.0)

    with pytest.raises(ModelServerUnavailable):
        predictor.predict(pictures(1)[0])


def test_without_shares_the_canary_is_never_asked():
    canary = Version(2)
    predictor = CanaryPredictor(Version(1), canary, canary_share=0.0, shadow_share=0.0)

    for picture in pictures(20):
        predictor.predict(picture)
    predictor.close()

    assert canary.asked == 0


@pytest.mark.parametrize(
    ("canary", "result", "agreement"),
    [
        (Version(2, malignant=0.9), "compared", ("benign", "malignant")),
        (Version(2, malignant=0.2), "compared", ("benign", "benign")),
        (Version(1), "no_canary", None),
        (Version(2, error=ModelServerUnavailable("x")), "failed", None),
        (Version(2, error=RuntimeError("a mistake of ours")), "failed", None),
    ],
)
def test_a_shadowed_picture_is_answered_by_the_stable_version_and_compared(canary, result, agreement):
    predictor = CanaryPredictor(Version(1), canary, canary_share=0.0, shadow_share=1.0)
    counts, (pairs, differences) = counted("shadows", result=result), compared()

    assert predictor.predict(pictures(1)[0]).model_version == 1
    predictor.close()

    assert counted("shadows", result=result) == counts + 1
    expected = pairs | ({agreement: pairs.get(agreement, 0) + 1} if agreement else {})
    assert compared() == (expected, differences + (agreement is not None))


def test_a_slow_canary_is_not_waited_for_and_its_queue_has_an_end():
    release = threading.Event()

    class Slow(Version):
        def predict(self, image):
            release.wait(30)
            return super().predict(image)

    canary = Slow(2)
    predictor = CanaryPredictor(Version(1), canary, canary_share=0.0, shadow_share=1.0)
    before = counted("shadows", result="dropped")

    assert [predictor.predict(picture).model_version for picture in pictures(MAX_SHADOWED + 3)] == [1] * (MAX_SHADOWED + 3)
    assert counted("shadows", result="dropped") == before + 3
    release.set()
    predictor.close()
    assert canary.asked == MAX_SHADOWED


def test_each_picture_of_a_batch_goes_where_it_would_go_alone_in_two_calls_at_most():
    stable, canary = Version(1), Version(2)
    predictor = CanaryPredictor(stable, canary, canary_share=0.3, shadow_share=0.0)
    asked = pictures(16)
    alone = [predictor.predict(picture).model_version for picture in asked]

    answers = predictor.predict_batch(np.stack(asked))

    assert [answer.model_version for answer in answers] == alone
    assert {1, 2} == set(alone)
    assert (stable.batches, canary.batches) == ([alone.count(1)], [alone.count(2)])


@pytest.mark.parametrize(
    "canary", [Version(2, error=ModelServerUnavailable("x")), Version(2, metadata_error=InvalidModelAnswer("x"))]
)
def test_a_canary_that_fails_costs_no_picture_of_a_batch_its_answer(canary):
    stable = Version(1)
    predictor = CanaryPredictor(stable, canary, canary_share=0.5, shadow_share=1.0)
    before = counted("canary_fallbacks")

    answers = predictor.predict_batch(np.stack(pictures(8)))
    predictor.close()

    assert [answer.model_version for answer in answers] == [1] * 8
    assert stable.batches == [8]
    assert counted("canary_fallbacks") == before + canary.batches[0]


def test_the_other_pictures_of_a_batch_are_shadowed():
    predictor = CanaryPredictor(Version(1), Version(2), canary_share=0.0, shadow_share=1.0)
    before = counted("shadows", result="compared")

    predictor.predict_batch(np.stack(pictures(3)))
    predictor.close()

    assert counted("shadows", result="compared") == before + 3


def test_without_shares_a_batch_is_the_stable_versions():
    stable, canary = Version(1), Version(2)

    CanaryPredictor(stable, canary, canary_share=0.0, shadow_share=0.0).predict_batch(np.stack(pictures(4)))

    assert (stable.batches, canary.batches) == ([4], [])


@pytest.mark.parametrize("share", [0.25, 0.0])
def test_prometheus_is_told_the_share_so_that_two_versions_are_no_surprise(share):
    CanaryPredictor(Version(1), Version(2), share, 0.0)

    assert REGISTRY.get_sample_value("dermserve_gateway_canary_share") == share
