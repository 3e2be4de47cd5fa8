import dataclasses
import json

import pytest

from serving.metadata import Estimate, GoldenAnswer, Histogram, MetadataError, ModelMetadata, Reference, Thresholds
from tests.metadata import METADATA, with_reference
from tests.processes import ROOT


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


def test_a_reference_and_a_golden_answer_are_kept_and_where_there_are_none_nothing_is_written():
    metadata = with_reference((1, 2) + (0,) * 10, (0,) * 10 + (2, 1), golden_malignant=0.25, golden_none_score=-1.5)

    assert ModelMetadata.from_json(metadata.to_json()) == metadata
    assert {"reference", "golden"}.isdisjoint(json.loads(METADATA.to_json()))
    assert (METADATA.reference, METADATA.golden) == (None, None)


@pytest.mark.parametrize(
    ("edges", "counts"),
    [((1.0, 1.0), (1, 1, 1)), ((2.0, 1.0), (1, 1, 1)), ((1.0,), (1,)), ((1.0,), (0, 0)), ((1.0,), (-1, 2)), ((1e999,), (1, 1))],
)
def test_what_is_no_histogram_is_refused(edges, counts):
    with pytest.raises(MetadataError):
        Histogram(edges, counts)


def test_two_histograms_of_one_reference_are_of_the_same_pictures():
    with pytest.raises(MetadataError, match="different pictures"):
        Reference("val", Histogram((0.5,), (3, 4)), Histogram((0.0,), (3, 5)))


@pytest.mark.parametrize(
    ("malignant", "none_score", "malignant_tolerance", "none_score_tolerance"),
    [
        (1.5, 0.0, 0.05, 0.5),
        (0.5, float("nan"), 0.05, 0.5),
        (0.5, 0.0, 0.0, 0.5),
        (0.5, 0.0, 1.0, 0.5),
        (0.5, 0.0, 0.05, 1e999),
    ],
)
def test_a_golden_answer_that_none_or_any_could_equal_is_refused(
    malignant, none_score, malignant_tolerance, none_score_tolerance
):
    with pytest.raises(MetadataError):
        GoldenAnswer("0" * 64, malignant, none_score, malignant_tolerance, none_score_tolerance)


def test_the_released_versions_can_be_read():
    documents = sorted((ROOT / "serving" / "models" / "lesion").glob("*/assets.extra/metadata.json"))

    assert documents
    for document in documents:
        assert ModelMetadata.from_json(document.read_text()).version == int(document.parent.parent.name)
