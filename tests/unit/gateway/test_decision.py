import numpy as np
import pytest

from gateway.decision import decide
from gateway.predictor import Prediction
from serving.metadata import Thresholds

THRESHOLDS = Thresholds(malignant=0.2, none=3.0, uncertain_low=0.18, uncertain_high=0.22, guard=0.6)


@pytest.mark.parametrize(
    ("malignant", "none_score", "expected"),
    [
        (0.05, 0.0, ("benign", None)),
        (0.1799, 2.999, ("benign", None)),
        (0.18, 0.0, ("none", "uncertain")),
        (0.2199, 0.0, ("none", "uncertain")),
        (0.22, 0.0, ("malignant", None)),
        (0.99, 2.999, ("malignant", None)),
        (0.05, 3.0, ("none", "out_of_scope")),
        (0.5999, 9.0, ("none", "out_of_scope")),
        (0.6, 9.0, ("none", "uncertain")),
        (0.2, 3.0, ("none", "out_of_scope")),
    ],
)
def test_each_side_of_each_threshold(malignant, none_score, expected):
    prediction = Prediction(malignant, none_score, np.zeros((7, 7), np.float32), 1)

    assert decide(prediction, THRESHOLDS) == expected


def test_without_an_abstain_band_the_threshold_itself_is_malignant():
    thresholds = Thresholds(malignant=0.2, none=3.0, uncertain_low=0.2, uncertain_high=0.2, guard=0.6)

    assert decide(Prediction(0.2, 0.0, np.zeros((7, 7), np.float32), 1), thresholds) == ("malignant", None)
