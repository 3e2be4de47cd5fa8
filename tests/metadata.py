"""A valid metadata document for tests; the tiny model carries it."""

import dataclasses
import hashlib

from serving.contract import CLASSES, GOLDEN_PICTURE, MODEL_NAME, NONE_SCORE_EDGES, PROBABILITY_EDGES, SCHEMA_VERSION
from serving.metadata import (
    Calibration,
    Estimate,
    GoldenAnswer,
    Histogram,
    ModelMetadata,
    OperatingPoint,
    Provenance,
    Reference,
    Score,
    Source,
    Thresholds,
)

METADATA = ModelMetadata(
    schema_version=SCHEMA_VERSION,
    name=MODEL_NAME,
    version=1,
    classes=CLASSES,
    thresholds=Thresholds(malignant=0.4, none=5.0, uncertain_low=0.36, uncertain_high=0.44, guard=0.7),
    calibration=Calibration(slope=1.0, intercept=0.0),
    operating_point=OperatingPoint("test", Estimate(0.95, 0.91, 0.98, 200), Estimate(0.71, 0.68, 0.74, 900)),
    none_score="mean of the blue channel",
    scores=(
        Score("AUROC", "all", Estimate(0.5, 0.4, 0.6, 1100)),
        Score("malignant of those flagged", "prevalence 7%", Estimate(0.2, 0.15, 0.25, 1100)),
        Score("non-lesions accepted", "photo", Estimate(0.02, 0.0, 0.09, 50)),
        Score("benign/malignant flips: JPEG 50", "all", Estimate(0.03, 0.02, 0.04, 1100)),
    ),
    provenance=Provenance("2026-01-01T00:00:00Z", "tiny", "0" * 64, "none", (Source("painted squares", "none", 1),)),
)

VALIDATION_LIKE = (435, 216, 216, 216, 193, 386, 292, 248, 161, 185, 133, 40)
NONE_SCORES_LIKE = (70, 297, 306, 391, 430, 349, 281, 348, 169, 63, 17, 0)
"""What version 2 answers to its validation lesions."""


def with_reference(
    malignant=VALIDATION_LIKE, none_score=NONE_SCORES_LIKE, golden_malignant=0.1, golden_none_score=0.0, version=1
):
    """The document of a version that has what versions from 3 on have."""
    return dataclasses.replace(
        METADATA,
        version=version,
        reference=Reference("val", Histogram(PROBABILITY_EDGES, malignant), Histogram(NONE_SCORE_EDGES, none_score)),
        golden=GoldenAnswer(
            hashlib.sha256(GOLDEN_PICTURE.read_bytes()).hexdigest(), golden_malignant, golden_none_score, 0.05, 0.5
        ),
    )
