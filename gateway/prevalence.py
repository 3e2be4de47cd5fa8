"""What an answer means where so many of those who are checked have a malignant lesion (Bayes' rule)."""

from typing import Final

from serving.metadata import OperatingPoint

EXAMPLES: Final = (0.02, 0.07, 0.5)
"""Shares of malignant lesions: about those of people without a reason for worry, of a dermatologist's practice, of a referral
for removal."""

MAX_PERCENT: Final = 50
"""Up to which a reader may ask; from 1 on."""


def malignant_if_flagged(point: OperatingPoint, prevalence: float) -> float:
    """Share of malignant lesions among those that are flagged: the positive predictive value.

    Args:
        point: how often the version flags malignant lesions, and does not flag benign ones.
        prevalence: share of malignant lesions among those that are checked.

    Returns:
        0 when nothing is flagged at all.
    """
    return _share(point.sensitivity.value * prevalence, (1 - point.specificity.value) * (1 - prevalence))


def malignant_if_not_flagged(point: OperatingPoint, prevalence: float) -> float:
    """Share of malignant lesions among those that are not flagged: the negative predictive value's rest."""
    return _share((1 - point.sensitivity.value) * prevalence, point.specificity.value * (1 - prevalence))


def _share(malignant: float, benign: float) -> float:
    return malignant / (malignant + benign) if malignant + benign else 0.0
