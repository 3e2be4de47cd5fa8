"""The answer, and a problem, as FHIR R4 resources. What a code means, and which ones are not ours, stands in docs/api.md.

Nothing of a patient is known here, so no resource has a subject: whoever takes the bundle in says whose picture it was.
"""

import datetime
import uuid
from typing import Any, Final

from gateway.classify import Classification
from gateway.problems import Problem

CODES: Final = "urn:dermserve:fhir:codes"
"""System of our own codes; all of them are listed in docs/api.md."""

PROBLEM_CODES: Final = "urn:dermserve:fhir:problems"
"""System of the problems' slugs."""

REQUESTS: Final = "urn:dermserve:request"
"""System of the ids of requests."""

_AI_ASSERTED: Final = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}
_PARTICIPANTS: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_UCUM: Final = "http://unitsofmeasure.org"
_PERCENT: Final = 100.0
_DECIMALS: Final = 6
"""Of a number: what is further behind is noise of the arithmetic."""

_TEXTS: Final = {
    "lesion-classification": "Classification of a picture of a skin lesion",
    "malignant-probability": "Calibrated probability that the lesion is malignant",
    "none-score": "Distance of the picture from the lesions that the model knows; higher is further",
    "picture-quality": "What makes the picture less fit to be classified",
    "benign": "Looks more like a benign lesion. This does not rule out cancer.",
    "malignant": "Shows signs of a malignant lesion. This is not a diagnosis.",
    "out_of_scope": "Outside what the model can assess. This does not mean that there is no cancer.",
    "uncertain": "Too uncertain to call. A dermatologist should look at the lesion.",
    "blurry": "It has little detail: it may be blurred.",
    "dark": "It is very dark.",
    "bright": "It is very bright.",
    "low_resolution": "It is very small.",
}
_ISSUES: Final = {
    400: "invalid",
    401: "login",
    403: "forbidden",
    404: "not-found",
    405: "not-supported",
    406: "not-supported",
    409: "conflict",
    413: "too-long",
    415: "not-supported",
    422: "processing",
    429: "throttled",
    501: "not-supported",
    503: "transient",
    504: "timeout",
}
"""Status -> code of an issue (http://hl7.org/fhir/issue-type)."""

Resource = dict[str, Any]


def to_bundle(classification: Classification) -> Resource:
    """A collection: report, two observations, the version as a device, and where they come from."""
    recorded = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    urls = {name: uuid.uuid4().urn for name in ("report", "classification", "probability", "device", "provenance")}
    resources = {
        "report": _report(classification, urls, recorded),
        "classification": _classification(classification, urls, recorded),
        "probability": _probability(classification, urls, recorded),
        "device": _device(classification),
        "provenance": _provenance(urls, recorded),
    }
    return {
        "resourceType": "Bundle",
        "meta": {"security": [_AI_ASSERTED]},
        "type": "collection",
        "timestamp": recorded,
        "entry": [{"fullUrl": urls[name], "resource": resource} for name, resource in resources.items()],
    }


def read_id(bundle: Resource) -> str:
    """Of the request that a bundle of `to_bundle` answered."""
    (identifier,) = bundle["entry"][0]["resource"]["identifier"]
    return str(identifier["value"])


def to_operation_outcome(problem: Problem, request_id: str) -> Resource:
    """A problem, with its slug as the code."""
    issue = {
        "severity": "error",
        "code": _ISSUES.get(problem.status, "exception"),
        "details": {"coding": [{"system": PROBLEM_CODES, "code": problem.slug}], "text": problem.title},
        "diagnostics": "; ".join(filter(None, (problem.detail, f"request {request_id}"))),
    }
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def _report(classification: Classification, urls: dict[str, str], recorded: str) -> Resource:
    outcome = classification.reason or classification.label
    return {
        "resourceType": "DiagnosticReport",
        "meta": {"security": [_AI_ASSERTED]},
        "identifier": [{"system": REQUESTS, "value": classification.id}],
        # Nobody has verified it; a final report is a doctor's.
        "status": "preliminary",
        "code": _concept("lesion-classification"),
        "issued": recorded,
        "result": [{"reference": urls["classification"]}, {"reference": urls["probability"]}],
        "conclusion": _TEXTS[outcome],
        "conclusionCode": [_concept(outcome)],
    }


def _classification(classification: Classification, urls: dict[str, str], recorded: str) -> Resource:
    answer = (
        {"dataAbsentReason": _concept(classification.reason)}
        if classification.reason
        else {"valueCodeableConcept": _concept(classification.label)}
    )
    thresholds = classification.metadata.thresholds
    score = {
        "code": _concept("none-score"),
        "valueQuantity": _quantity(classification.none_score, "1"),
        "referenceRange": [{"high": _quantity(thresholds.none, "1"), "text": "Out of scope from here on."}],
    }
    quality = [
        {"code": _concept("picture-quality"), "valueCodeableConcept": _concept(name)} for name in classification.warnings
    ]
    return _observation("lesion-classification", urls, recorded) | answer | {"component": [score, *quality]}


def _probability(classification: Classification, urls: dict[str, str], recorded: str) -> Resource:
    """Without a value when the picture is out of scope: the model's figure for it says nothing."""
    if classification.reason == "out_of_scope":
        return _observation("malignant-probability", urls, recorded) | {"dataAbsentReason": _concept("out_of_scope")}
    thresholds = classification.metadata.thresholds
    called = {
        "low": _quantity(_PERCENT * thresholds.uncertain_high, "%"),
        "text": "Called malignant from here on by this version of the model.",
    }
    return _observation("malignant-probability", urls, recorded) | {
        "valueQuantity": _quantity(_PERCENT * classification.malignant, "%"),
        "interpretation": [_concept(classification.reason or classification.label)],
        "referenceRange": [called],
    }


def _observation(code: str, urls: dict[str, str], recorded: str) -> Resource:
    return {
        "resourceType": "Observation",
        "meta": {"security": [_AI_ASSERTED]},
        "status": "preliminary",
        "code": _concept(code),
        "issued": recorded,
        "device": {"reference": urls["device"]},
    }


def _device(classification: Classification) -> Resource:
    metadata = classification.metadata
    return {
        "resourceType": "Device",
        "deviceName": [{"name": f"Dermserve {metadata.name}", "type": "model-name"}],
        "version": [{"value": str(metadata.version)}],
        "note": [{"text": "A computer model for research and teaching; not registered as a medical device."}],
    }


def _provenance(urls: dict[str, str], recorded: str) -> Resource:
    author = {"type": {"coding": [{"system": _PARTICIPANTS, "code": "author"}]}, "who": {"reference": urls["device"]}}
    return {
        "resourceType": "Provenance",
        "meta": {"security": [_AI_ASSERTED]},
        "target": [{"reference": urls[name]} for name in ("report", "classification", "probability")],
        "recorded": recorded,
        "agent": [author],
    }


def _concept(code: str) -> Resource:
    return {"coding": [{"system": CODES, "code": code.replace("_", "-")}], "text": _TEXTS[code]}


def _quantity(value: float, unit: str) -> Resource:
    return {"value": round(value, _DECIMALS), "unit": unit, "system": _UCUM, "code": unit}
