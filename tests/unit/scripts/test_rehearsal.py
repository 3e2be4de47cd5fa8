"""What `make rehearse` would find."""

import json
import math

import pytest
import requests

from scripts.rehearsal.ledger import Kept, compare, unknown
from scripts.rehearsal.traffic import Traffic, _is_clean

FINDING = {"agrees": True, "histology": "benign"}
BACKUP = {"start": 10.0, "end": 11.0, "erased_by": 20.0}


def kept(id="1", sent=1.0, **facts):
    values = {"findings": [(sent + 0.2, FINDING)]} | facts
    return Kept({"id": id, "label": "benign", "findings": []}, sent, sent + 0.1, **values)


def row(id="1", **facts):
    return {"id": id, "label": "benign", "findings": [FINDING]} | facts


def test_a_record_that_is_what_was_answered_has_no_faults():
    ledger = {
        "1": kept(),
        "meanwhile": kept("meanwhile", sent=10.5),
        "later": kept("later", sent=12.0),
        "erased": kept("erased", erasure=(15.0, 15.1)),
        "asked": kept("asked", erasure=(15.0, math.inf)),
    }

    assert compare({"1": row(), "asked": row("asked")}, ledger, **BACKUP) == []
    assert compare({"1": row(), "meanwhile": row("meanwhile", findings=[])}, ledger, **BACKUP) == []


@pytest.mark.parametrize(
    ("found", "case", "fault"),
    [
        ({}, kept(), "is not there"),
        ({"1": row(label="malignant")}, kept(), "told was"),
        ({"1": row(findings=[])}, kept(), "lacks the finding"),
        ({"1": row()}, kept(sent=12.0), "was kept later"),
        ({"1": row()}, kept(erasure=(15.0, 15.1)), "was erased and is there"),
        ({}, kept(erasure=(21.0, 21.1)), "is not there"),
    ],
)
def test_what_a_record_has_otherwise_is_found(found, case, fault):
    (told,) = compare(found, {"1": case}, **BACKUP)

    assert fault in told


def test_a_case_that_nobody_was_told_of_is_found():
    assert unknown({"1": row()}, {}) == ["nobody was told of case 1"]


def response(status, document, **headers):
    made = requests.Response()
    made.status_code, made._content = status, json.dumps(document).encode()
    made.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return made


def test_only_a_refusal_that_says_what_to_do_is_clean():
    assert _is_clean(response(503, {"type": "/problems/overloaded"}, Retry_After="1"))
    assert _is_clean(response(503, {"type": "/problems/cases-unavailable"}))
    assert not _is_clean(response(503, {"type": "/problems/audit-unavailable"}))
    assert not _is_clean(response(500, {}, Retry_After="1"))
    assert not _is_clean(response(404, {"type": "/problems/case-not-found"}))


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ({}, ""),
        ({"thresholds": {"malignant": 0.9}}, "another version's threshold"),
        ({"label": "malignant"}, "and now malignant"),
        ({"probabilities": {"malignant": 0.4}}, "another probability"),
    ],
)
def test_an_answer_that_is_another_is_found(answer, fault):
    first = {
        "label": "benign",
        "model": {"version": 3},
        "thresholds": {"malignant": 0.5},
        "probabilities": {"malignant": 0.1},
    }
    traffic = Traffic(None, {3: 0.5})

    assert traffic._fault(0, first) == ""
    assert fault in traffic._fault(0, first | answer)
    assert bool(traffic._fault(0, first | answer)) == bool(fault)
