import dataclasses
import json

import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.operationoutcome import OperationOutcome

from gateway import fhir, problems
from gateway.classify import Classification
from tests.metadata import METADATA
from tests.processes import ROOT

OUTCOMES = {
    "malignant": Classification("case-0001", "malignant", None, 0.75, 1.5, ("blurry", "low_resolution"), METADATA),
    "benign": Classification("case-0002", "benign", None, 0.1, 1.5, (), METADATA),
    "uncertain": Classification("case-0003", "none", "uncertain", 0.4, 1.5, ("dark", "bright"), METADATA),
    "out_of_scope": Classification("case-0004", "none", "out_of_scope", 0.02, 9.0, (), METADATA),
}

ISSUE_TYPES = {
    *("invalid", "structure", "required", "value", "invariant", "security", "login", "unknown", "expired", "forbidden"),
    *("suppressed", "processing", "not-supported", "duplicate", "multiple-matches", "not-found", "deleted", "too-long"),
    *("code-invalid", "extension", "too-costly", "business-rule", "conflict", "transient", "lock-error", "no-store"),
    *("exception", "timeout", "incomplete", "throttled", "informational"),
}
"""http://hl7.org/fhir/R4/valueset-issue-type.html"""


def bundle(outcome):
    return fhir.to_bundle(OUTCOMES[outcome])


def resources(document):
    return [entry["resource"] for entry in document["entry"]]


def observation(document, code):
    return next(
        resource
        for resource in resources(document)
        if resource["resourceType"] == "Observation" and resource["code"]["coding"][0]["code"] == code
    )


def references(node):
    if isinstance(node, dict):
        yield from [node["reference"]] if "reference" in node else []
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from references(item)


def codes(node):
    """Of our own system."""
    if isinstance(node, dict):
        yield from [node["code"]] if node.get("system") == fhir.CODES else []
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from codes(item)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_bundle_is_valid_and_loses_nothing(outcome):
    """R4B has these five resource types as R4 has them: docs/api.md."""
    document = bundle(outcome)

    read = json.loads(Bundle.model_validate(document).model_dump_json())

    assert sorted(resource["resourceType"] for resource in resources(read)) == [
        "Device",
        "DiagnosticReport",
        "Observation",
        "Observation",
        "Provenance",
    ]
    assert set(codes(read)) == set(codes(document))


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_reference_resolves_in_the_bundle_and_every_resource_has_an_address_of_its_own(outcome):
    document = bundle(outcome)
    addresses = [entry["fullUrl"] for entry in document["entry"]]

    assert len(set(addresses)) == len(addresses)
    assert set(references(document)) <= set(addresses)
    # Nothing stands for itself but the provenance, which points at the others.
    assert set(references(document)) == set(addresses[:-1])
    assert resources(document)[-1]["resourceType"] == "Provenance"


def test_two_bundles_share_no_address():
    first, second = ({entry["fullUrl"] for entry in bundle("benign")["entry"]} for _ in range(2))

    assert not first & second


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_what_the_model_asserts_is_labelled_and_is_no_final_result(outcome):
    document = bundle(outcome)

    for resource in [document, *resources(document)]:
        if resource["resourceType"] != "Device":
            assert [label["code"] for label in resource["meta"]["security"]] == ["AIAST"]
    assert {resource["status"] for resource in resources(document) if "status" in resource} == {"preliminary"}
    assert "subject" not in json.dumps(document)


@pytest.mark.parametrize("outcome", ["malignant", "benign"])
def test_a_class_is_a_value_and_the_probability_a_quantity(outcome):
    document = bundle(outcome)

    called = observation(document, "lesion-classification")
    probability = observation(document, "malignant-probability")

    assert called["valueCodeableConcept"]["coding"] == [{"system": fhir.CODES, "code": outcome}]
    assert "dataAbsentReason" not in called
    assert probability["valueQuantity"]["value"] == pytest.approx(100 * OUTCOMES[outcome].malignant)
    assert probability["interpretation"][0]["coding"][0]["code"] == outcome
    assert probability["referenceRange"][0]["low"]["value"] == 44.0


@pytest.mark.parametrize(("outcome", "code"), [("uncertain", "uncertain"), ("out_of_scope", "out-of-scope")])
def test_none_is_no_value_and_says_why(outcome, code):
    called = observation(bundle(outcome), "lesion-classification")

    assert called["dataAbsentReason"]["coding"] == [{"system": fhir.CODES, "code": code}]
    assert not [key for key in called if key.startswith("value")]


def test_out_of_scope_the_probability_is_not_given():
    probability = observation(bundle("out_of_scope"), "malignant-probability")

    assert "valueQuantity" not in probability
    assert probability["dataAbsentReason"]["coding"][0]["code"] == "out-of-scope"


def test_the_device_is_the_version_and_the_provenance_names_it_as_the_author():
    document = bundle("benign")
    by_type = {resource["resourceType"]: resource for resource in resources(document)}
    addresses = {entry["resource"]["resourceType"]: entry["fullUrl"] for entry in document["entry"]}

    assert by_type["Device"]["version"] == [{"value": str(METADATA.version)}]
    assert by_type["Provenance"]["agent"][0]["who"] == {"reference": addresses["Device"]}
    assert len(by_type["Provenance"]["target"]) == 3


@pytest.mark.parametrize("problem", problems.BY_SLUG.values(), ids=problems.BY_SLUG)
def test_every_problem_is_a_valid_outcome(problem):
    detailed = dataclasses.replace(problem, detail="too small")

    read = json.loads(OperationOutcome.model_validate(fhir.to_operation_outcome(detailed, "case-0001")).model_dump_json())

    assert read["issue"][0]["details"]["coding"][0]["code"] == problem.slug
    assert read["issue"][0]["diagnostics"] == "too small; request case-0001"


def test_the_kinds_of_issues_are_those_that_fhir_has():
    """Also for statuses that no problem has yet; the library does not look into value sets."""
    assert set(fhir._ISSUES.values()) <= ISSUE_TYPES


def test_every_code_of_ours_is_documented_and_no_other():
    used = {code for outcome in OUTCOMES for code in codes(bundle(outcome))}
    table = (ROOT / "docs" / "api.md").read_text().partition("### Codes")[2].partition("\n#")[0]

    assert used == {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
