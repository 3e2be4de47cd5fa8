"""The formulas against values that the library oodeel gave for the same numbers (`make oodeel` takes them again)."""

import json

import numpy as np
import pytest

from tests import oodeel_reference
from training import none_scores
from training.none_scores import Head

RECORDED = json.loads(oodeel_reference.RECORDED.read_text())


@pytest.fixture(scope="module")
def scores():
    lesions, diagnoses, others, kernel, bias = oodeel_reference.example()
    head = Head(kernel, bias)
    ours = {
        "max softmax": none_scores.max_softmax(head),
        "energy": none_scores.energy(head),
        "ReAct": none_scores.react(lesions, head),
        "SCALE": none_scores.scale(head),
        # oodeel's are log-densities, without the factor of two.
        "Mahalanobis": lambda x: none_scores.mahalanobis(lesions, diagnoses)(x) / 2,
        "relative Mahalanobis": lambda x: none_scores.relative_mahalanobis(lesions, diagnoses)(x) / 2,
        # oodeel's distance is squared.
        "KNN": lambda x: none_scores.nearest_neighbours(lesions)(x) ** 2,
        "ViM": none_scores.virtual_logit(lesions, head, oodeel_reference.PRINCIPAL),
    }
    return {name: score(others) for name, score in ours.items()}


@pytest.mark.parametrize("name", RECORDED)
def test_a_score_is_that_of_an_independent_library(name, scores):
    np.testing.assert_allclose(scores[name], RECORDED[name], rtol=1e-2, atol=1e-3)  # oodeel inverts in float32


def test_every_score_puts_another_cloud_further_away():
    rng = np.random.default_rng(1)
    centres = rng.uniform(1, 4, (3, 32)) * (np.arange(32) % 3 == np.arange(3)[:, None])
    lesions = np.abs(np.repeat(centres, 200, axis=0) + rng.normal(0, 0.3, (600, 32)))
    others = np.abs(rng.normal(0, 0.3, (50, 32)) + rng.permuted(centres[rng.integers(3, size=50)], axis=1) * 0.5)

    scores = none_scores.fit_all(lesions, np.repeat(["mel", "nv", "bkl"], 200))

    assert len(scores) == 8
    for name, score in scores.items():
        assert np.median(score(others)) > np.quantile(score(lesions), 0.9), name


def test_two_diagnoses_have_two_logits():
    rng = np.random.default_rng(2)
    embeddings = np.abs(rng.normal(np.repeat([[1.0], [2.0]], 50, axis=0), 0.3, (100, 8)))

    head = Head.fit(embeddings, np.repeat(["mel", "nv"], 50))

    logits = head.logits(embeddings)
    assert logits.shape == (100, 2)
    assert (logits.argmax(axis=1) == np.repeat([0, 1], 50)).mean() > 0.95
