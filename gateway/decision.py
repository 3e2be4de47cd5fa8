"""Prediction and metadata of the same version -> benign, malignant or none."""

from typing import Literal

from gateway.predictor import Prediction
from serving.metadata import Thresholds

Label = Literal["benign", "malignant", "none"]
Reason = Literal["out_of_scope", "uncertain"]


def decide(prediction: Prediction, thresholds: Thresholds) -> tuple[Label, Reason | None]:
    """Apply one version's thresholds to its own prediction.

    A picture that looks out of scope and malignant is reported as uncertain: it must not be silenced.
    """
    if prediction.none_score >= thresholds.none:
        return "none", "uncertain" if prediction.malignant >= thresholds.guard else "out_of_scope"
    if thresholds.uncertain_low <= prediction.malignant < thresholds.uncertain_high:
        return "none", "uncertain"
    return ("malignant" if prediction.malignant >= thresholds.malignant else "benign"), None
