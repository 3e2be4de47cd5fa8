"""A kept answer that is shown again goes by the audit record, as the first one did."""

import pytest

from gateway.app import create_app
from gateway.audit.record import digest
from gateway.settings import Settings
from tests.pictures import paint
from tests.unit.gateway.test_api import BATCH, FHIR, SINGLE, ByColour, send, slug
from tests.unit.gateway.test_cases_api import ListAudit

KEY = "8e03978e-40d5-43dd"
RED, BLUE = paint("malignant"), paint("out_of_scope")


class MemoryAnswers:
    """Keeps answers as long as it lives."""

    def __init__(self):
        self.kept = {}

    def begin(self, claim):
        return self.kept.get(claim.name)

    def keep(self, claim, answer):
        self.kept[claim.name] = answer

    def release(self, claim):
        """Nobody else asks."""


@pytest.fixture
def audit():
    return ListAudit()


@pytest.fixture
def caller(audit):
    return create_app(Settings(), ByColour(), answers=MemoryAnswers(), audit=audit).test_client()


@pytest.mark.parametrize("accept", ["application/json", FHIR])
def test_a_replay_is_recorded_with_its_picture_and_where_it_was_first_answered(caller, audit, accept):
    answers = [
        send(caller, SINGLE, RED, Idempotency_Key=KEY, Accept=accept, X_Request_ID=name) for name in ("first-one", "again-one")
    ]

    assert answers[0].text == answers[1].text
    first, again = audit.events
    assert (first.action, first.request_id, first.outcome) == ("classify", "first-one", "malignant")
    assert (again.action, again.request_id, again.reason, again.outcome) == ("replay", "again-one", "first-one", "done")
    assert (again.who, again.picture_sha256) == (first.who, digest(RED))


def test_of_a_batch_every_picture_is_recorded_again(caller, audit):
    for name in ("first-one", "again-one"):
        assert send(caller, BATCH, RED, b"text", BLUE, Idempotency_Key=KEY, X_Request_ID=name).status_code == 200

    first, again = audit.events[:3], audit.events[3:]
    assert {event.action for event in first} == {"classify"}
    assert [(event.action, event.request_id) for event in again] == [("replay", f"again-one-{place}") for place in (1, 2, 3)]
    assert [event.reason for event in again] == [f"first-one-{place}" for place in (1, 2, 3)]
    assert [event.picture_sha256 for event in again] == [digest(data) for data in (RED, b"text", BLUE)]


@pytest.mark.parametrize("path", [SINGLE, BATCH])
def test_what_cannot_be_recorded_is_not_shown_again(caller, audit, path):
    assert send(caller, path, RED, Idempotency_Key=KEY).status_code == 200
    audit.fails = True

    answer = send(caller, path, RED, Idempotency_Key=KEY)

    assert (answer.status_code, slug(answer)) == (503, "audit-unavailable")
    assert "label" not in answer.text
    assert "Idempotency-Replayed" not in answer.headers
