import dataclasses
import json

import pytest

from serving.metadata import Estimate, MetadataError, ModelMetadata, Thresholds
from tests.metadata import METADATA


def changed(**fields):
    return json.dumps(json.loads(METADATA.to_json()) | fields)


def test_the_document_gives_back_what_was_written():
    assert ModelMetadata.from_json(METADATA.to_json()) == METADATA
    assert ModelMetadata.from_json(METADATA.to_json().encode()) == METADATA


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        changed(surprise=1),
        changed(schema_version=2),
        changed(name="mole"),
        changed(classes=["malignant", "benign"]),
        changed(version=0),
        changed(version="one"),
        changed(thresholds={}),
        METADATA.to_json().replace("0.36", "0.41"),
        METADATA.to_json().replace("0.36", "NaN"),
        METADATA.to_json().replace("0.91", "0.96"),
        METADATA.to_json().replace("0.91", "-Infinity"),
        METADATA.to_json().replace("0.91", "-1e999"),
        changed(version=1.0),
        changed(version="1"),
        changed(version=True),
        changed(none_score=5),
        METADATA.to_json().replace("0.36", '"0.36"'),
        changed(calibration={"slope": -1.0, "intercept": 0.0}),
        changed(calibration={"slope": 1.0, "intercept": 1e999}),
        "[" * 200_000,
        b"\xff\xfe\x00",
    ],
)
def test_what_breaks_a_rule_is_refused_with_a_reason(text):
    with pytest.raises(MetadataError) as caught:
        ModelMetadata.from_json(text)

    assert str(caught.value)


def test_a_whole_number_is_a_number():
    document = METADATA.to_json().replace('"intercept": 0.0', '"intercept": 0')

    assert ModelMetadata.from_json(document) == METADATA


def test_nothing_that_is_not_a_number_is_written():
    with pytest.raises(MetadataError):
        Estimate(float("nan"), 0.0, 1.0, 5)
    with pytest.raises(MetadataError):
        dataclasses.replace(METADATA.thresholds, none=float("nan"))


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.5), (0.45, 0.5), (0.1, 0.3), (0.1, 1.0)])
def test_an_abstain_band_holds_its_threshold(low, high):
    with pytest.raises(MetadataError):
        Thresholds(malignant=0.4, none=1.0, uncertain_low=low, uncertain_high=high, guard=0.5)
