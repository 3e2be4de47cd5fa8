import csv
import hashlib
import io
import re
import threading
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask, g
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs
from werkzeug.datastructures import MultiDict

from gateway import auditing, cases_api, identity
from gateway.admission import Admission
from gateway.app import create_app
from gateway.audit.record import Head
from gateway.cases import figures
from gateway.cases.record import HISTOLOGIES, Count, Cursor, KeptCase
from gateway.classify import Classifier
from gateway.errors import AuditUnavailable, CaseNotFound, CasesUnavailable, ModelServerUnavailable, NotIdentified, NotPermitted
from gateway.identity import PERMISSIONS, Identity, guard_of
from gateway.problems import describe
from gateway.settings import Settings
from tests.pictures import paint
from tests.unit.gateway.test_app import FixedPredictor, post

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class MemoryStore:
    """Keeps cases as long as it lives."""

    def __init__(self):
        self.cases = {}
        self.counts = []

    def keep(self, case, seal):
        seal()
        self.cases[case.id] = case

    def find(self, id):
        if id not in self.cases:
            raise CaseNotFound
        return self.cases[id]

    def page(self, selection, limit, after=None):
        ordered = sorted(self.cases.values(), key=lambda case: (case.kept_at, case.id), reverse=True)
        fitting = [case for case in ordered if selection.label in (None, case.label)]
        return [case for case in fitting if after is None or (case.kept_at, case.id) < (after.kept_at, after.id)][:limit]

    def add_finding(self, id, finding, seal):
        case = self.find(id)
        seal()
        self.cases[id] = KeptCase(**vars(case) | {"findings": (*case.findings, finding)})

    def erase(self, id, seal):
        self.find(id)
        seal()
        del self.cases[id]

    def count(self, since):
        if self.counts is None:
            raise CasesUnavailable
        return self.counts


class ListAudit:
    """Keeps records, until it is told to fail."""

    def __init__(self):
        self.events = []
        self.fails = False

    def write(self, event):
        if self.fails:
            raise AuditUnavailable("the disk is full")
        self.events.append(event)
        return Head(len(self.events), "a" * 64)

    def told(self):
        return [(event.action, event.outcome) for event in self.events]


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def audit():
    return ListAudit()


@pytest.fixture
def caller(store, audit):
    settings = Settings(max_upload_bytes=200_000)
    return create_app(settings, FixedPredictor(malignant=0.9), audit=audit, case_store=store).test_client()


def keep(caller):
    return post(caller, paint(), "/api/v1/cases").get_json()["case"]


def kept(number, **facts):
    values = {
        "id": f"{number:032x}",
        "kept_at": NOON + timedelta(milliseconds=number),
        "kept_by": "key:clinic",
        "picture_sha256": "0" * 64,
        "label": "benign",
        "reason": None,
        "malignant": 0.25,
        "none_score": -1.5,
        "model_version": 1,
    }
    return KeptCase(**values | facts)


def test_what_is_kept_is_what_is_answered(caller, store):
    response = post(caller, paint(), "/api/v1/cases", name="Budi.png")
    document = response.get_json()

    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    assert document["classification"]["label"] == document["case"]["label"] == "malignant"
    assert document["case"]["picture_sha256"] == hashlib.sha256(paint()).hexdigest()
    assert caller.get(response.headers["Location"]).get_json() == document["case"]
    assert document["case"]["findings"] == []
    assert re.fullmatch(r"[0-9a-f]{32}", document["case"]["id"])


def test_every_step_is_recorded_with_who_and_which_cases(caller, audit):
    case = keep(caller)
    caller.get("/api/v1/cases")
    caller.get(f"/api/v1/cases/{case['id']}")
    caller.post(f"/api/v1/cases/{case['id']}/findings", json={"agrees": True, "histology": "malignant"})
    caller.get("/api/v1/cases.csv")
    caller.delete(f"/api/v1/cases/{case['id']}")

    assert audit.told() == [
        ("classify", "malignant"),
        ("keep_case", "malignant"),
        ("read_cases", "done"),
        ("read_cases", "done"),
        ("write_finding", "done"),
        ("export_cases", "done"),
        ("erase_case", "done"),
    ]
    assert {event.who for event in audit.events} == {"anybody"}
    assert [event.cases for event in audit.events] == [(), *[(case["id"],)] * 4, (), (case["id"],)]


def test_without_a_record_nothing_is_answered_kept_changed_or_erased(caller, store, audit):
    case = keep(caller)
    before = dict(store.cases)
    audit.fails = True

    answers = [
        post(caller, paint()),
        post(caller, b"text"),
        post(caller, paint(), "/api/v1/cases"),
        caller.get("/api/v1/cases"),
        caller.get(f"/api/v1/cases/{case['id']}"),
        caller.get("/api/v1/cases.csv"),
        caller.post(f"/api/v1/cases/{case['id']}/findings", json={"agrees": True}),
        caller.delete(f"/api/v1/cases/{case['id']}"),
    ]
    page = post(caller, paint(), "/check")

    for answer in answers:
        assert (answer.status_code, answer.get_json(force=True)["type"]) == (503, "/problems/audit-unavailable")
    assert page.status_code == 503
    assert "90,0" not in page.text
    assert 'class="problem"' in page.text
    assert store.cases == before


def test_the_log_line_carries_the_end_of_the_chain(caller):
    with capture_logs() as lines:
        post(caller, paint())
        caller.get("/health/live")

    assert [line.get("audit") for line in lines] == [f"1:{'a' * 64}", None]


@pytest.mark.parametrize(
    ("data", "slug", "is_read"),
    [(b"text", "not-a-picture", True), (b"", "no-picture", False), (b"x" * 300_000, "upload-too-large", False)],
)
def test_a_picture_that_is_refused_is_recorded(caller, audit, data, slug, is_read):
    post(caller, data)
    post(caller, data, "/check")

    assert audit.told() == [("classify", slug)] * 2
    assert {event.picture for event in audit.events} == {data if is_read else None}


def test_without_consent_not_even_the_digest_is_taken(caller, audit):
    post(caller, paint(), "/check", consent="")

    assert [(event.outcome, event.picture) for event in audit.events] == [("no-consent", None)]


def test_each_picture_of_a_batch_has_its_own_record(caller, audit):
    good, other = paint(), paint("benign")
    body = MultiDict([("file", (io.BytesIO(data), "x")) for data in (good, b"text", other)])

    answer = caller.post("/api/v1/classifications:batch", data=body).get_json()

    assert [event.request_id for event in audit.events] == [f"{answer['results'][0]['id'][:-2]}-{place}" for place in (1, 3, 2)]
    assert {event.picture_sha256: event.outcome for event in audit.events} == {
        hashlib.sha256(good).hexdigest(): "malignant",
        hashlib.sha256(other).hexdigest(): "malignant",
        hashlib.sha256(b"text").hexdigest(): "not-a-picture",
    }


@pytest.mark.parametrize("files", [[paint()], [b"text"], [paint(), b"text"]])
def test_a_batch_of_which_a_record_is_missing_is_not_answered(caller, audit, files):
    audit.fails = True

    with capture_logs():
        answer = caller.post(
            "/api/v1/classifications:batch", data=MultiDict([("file", (io.BytesIO(data), "x")) for data in files])
        )

    assert answer.get_json(force=True)["type"] == "/problems/audit-unavailable"


def test_a_batch_that_fails_as_a_whole_is_recorded_without_a_picture(store, audit):
    predictor = FixedPredictor(error=ModelServerUnavailable("x"))
    body = MultiDict([("file", (io.BytesIO(paint()), "x")) for _ in range(2)])

    with capture_logs():
        create_app(Settings(), predictor, audit=audit).test_client().post("/api/v1/classifications:batch", data=body)

    assert [(event.outcome, event.picture) for event in audit.events] == [("model-unavailable", None)]


@pytest.mark.parametrize(("shows_a_key", "expected"), [(True, [("stranger", "refused", "not-signed-in")]), (False, [])])
def test_of_strangers_those_with_a_wrong_key_are_recorded(audit, shows_a_key, expected):
    app = Flask("refusals")
    auditing.init_app(app, audit)
    with app.test_request_context("/api/v1/cases", method="POST"):
        g.request_id, g.has_failed = "request-1", shows_a_key
        auditing.write_problem(NotIdentified("x"), describe(NotIdentified("x")))

    assert [(event.who, event.action, event.outcome) for event in audit.events] == expected


def test_whoever_is_refused_is_recorded(audit):
    app = Flask("refusals")
    auditing.init_app(app, audit)
    for who in (Identity("key:reader", frozenset()), None):
        with app.test_request_context("/api/v1/cases", method="POST"):
            g.request_id = "request-1"
            if who:
                g.identity = who
            assert auditing.write_problem(NotPermitted("x"), describe(NotPermitted("x"))).slug == "not-permitted"

    recorded = [(event.who, event.action, event.outcome) for event in audit.events]
    assert recorded == [("key:reader", "refused", "not-permitted"), ("stranger", "refused", "not-permitted")]


def test_the_case_record_is_no_way_to_classify_for_those_who_may_not(store, audit):
    app = Flask("writers")
    app.testing = True
    identity.init_app(app, lambda: Identity("key:writer", frozenset({"write_cases"})))
    admission = Admission(1, 0, 1.0)
    app.register_blueprint(cases_api.blueprint(store, Classifier(FixedPredictor(), admission, 10**6, 1.0), admission, audit))

    with pytest.raises(NotPermitted, match="may not classify"):
        post(app.test_client(), paint(), "/api/v1/cases")


def test_overload_and_unknown_addresses_are_not_recorded(caller, audit):
    caller.get("/api/v1/nothing")
    caller.get("/model")

    assert audit.events == []


@pytest.mark.parametrize(
    "finding",
    [
        {},
        [],
        {"agrees": "yes"},
        {"agrees": None},
        {"agrees": 1},
        {"agrees": True, "histology": "Mr Budi, melanoma"},
        {"agrees": True, "histology": ["benign"]},
        {"agrees": True, "note": "Mr Budi"},
    ],
)
def test_a_finding_has_room_for_no_text(caller, store, finding):
    case = keep(caller)

    answer = caller.post(f"/api/v1/cases/{case['id']}/findings", json=finding)

    assert (answer.status_code, answer.get_json(force=True)["type"]) == (422, "/problems/invalid-case-request")
    assert "Budi" not in answer.text
    assert store.cases[case["id"]].findings == ()


def test_findings_are_added_and_none_is_replaced(caller):
    address = f"/api/v1/cases/{keep(caller)['id']}"
    caller.post(f"{address}/findings", json={"agrees": True})
    caller.post(f"{address}/findings", json={"agrees": False, "histology": "benign"})

    found = caller.get(address).get_json()["findings"]

    assert [(finding["agrees"], finding["histology"]) for finding in found] == [(True, None), (False, "benign")]


def test_pages_lead_from_one_to_the_next(caller, store):
    for number in range(5):
        store.cases[number] = kept(number)

    pages, cursor = [], ""
    while cursor is not None:
        page = caller.get(f"/api/v1/cases?limit=2{cursor and '&cursor='}{cursor}").get_json()
        pages.append([int(case["id"], 16) for case in page["cases"]])
        cursor = page["next"]

    assert pages == [[4, 3], [2, 1], [0]]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=-1",
        "cursor=x",
        "cursor=",
        "label=Budi",
        "model_version=x",
        "picture_sha256=ab",
    ],
)
def test_a_question_that_is_none_is_told(caller, query):
    answer = caller.get(f"/api/v1/cases?{query}")

    assert (answer.status_code, answer.get_json(force=True)["type"]) == (422, "/problems/invalid-case-request")


def test_a_case_that_is_not_there_is_told(caller):
    for answer in (
        caller.get("/api/v1/cases/none"),
        caller.delete("/api/v1/cases/none"),
        caller.post("/api/v1/cases/none/findings", json={"agrees": True}),
    ):
        assert (answer.status_code, answer.get_json(force=True)["type"]) == (404, "/problems/case-not-found")


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\n=1"])
def test_a_spreadsheet_calculates_nothing(caller, store, name):
    store.cases["x"] = kept(1, kept_by=name)

    response = caller.get("/api/v1/cases.csv")
    header, row = csv.reader(io.StringIO(response.text, newline=""))

    assert response.content_type == "text/csv; charset=utf-8"
    assert dict(zip(header, row, strict=True)) | {"kept_by": "", "none_score": ""} == {
        "id": f"{1:032x}",
        "kept_at": "2026-01-01T12:00:00.001000+00:00",
        "kept_by": "",
        "picture_sha256": "0" * 64,
        "label": "benign",
        "reason": "",
        "malignant": "0.25",
        "none_score": "",
        "model_version": "1",
        "found_at": "",
        "found_by": "",
        "agrees": "",
        "histology": "",
    }
    assert row[header.index("kept_by")] == f"'{name}"
    assert row[header.index("none_score")] == "-1.5"


def test_an_export_is_longer_than_a_page_and_has_a_line_for_each_finding(caller, store):
    store.cases = {number: kept(number) for number in range(1203)}
    case = keep(caller)
    for agrees in (True, False):
        caller.post(f"/api/v1/cases/{case['id']}/findings", json={"agrees": agrees})

    rows = list(csv.DictReader(io.StringIO(caller.get("/api/v1/cases.csv").text)))

    assert len(rows) == 1205
    assert len({row["id"] for row in rows}) == 1204
    assert [row["agrees"] for row in rows if row["id"] == case["id"]] == ["True", "False"]


@pytest.mark.parametrize("path", ["/api/v1/cases", "/api/v1/cases.csv", "/api/v1/cases/1"])
def test_without_a_database_there_are_no_cases(path):
    caller = create_app(Settings(), FixedPredictor()).test_client()

    assert caller.get(path).get_json(force=True)["type"] == "/problems/not-found"
    assert b"dermserve_gateway_cases" not in caller.get("/metrics").data


def test_every_route_of_the_cases_asks_for_a_permission(caller):
    app = caller.application
    guards = {
        rule.endpoint: guard_of(app, rule.endpoint) for rule in app.url_map.iter_rules() if rule.endpoint.startswith("cases.")
    }

    assert len(guards) == 6
    assert set(guards.values()) <= set(PERMISSIONS)


def test_a_cursor_comes_back_as_it_was():
    cursor = Cursor(NOON + timedelta(milliseconds=7), f"{12:032x}")

    assert Cursor.parse(str(cursor)) == cursor


def samples(store, max_wait_s=30.0):
    families = text_string_to_metric_families(figures.render(figures.Counts(store, max_wait_s)).decode())
    return {
        (sample.name.removeprefix("dermserve_gateway_cases_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_sensitivity_and_specificity_are_of_what_got_a_label(store):
    store.counts = [
        Count(1, "malignant", "malignant", 9),
        Count(1, "benign", "malignant", 1),
        Count(1, "none", "malignant", 5),
        Count(1, "benign", "benign", 3),
        Count(1, "malignant", "benign", 1),
        Count(2, "none", "benign", 1),
    ]

    assert samples(store) == {
        ("up",): 1,
        ("sensitivity", "1"): 0.9,
        ("specificity", "1"): 0.75,
        ("with_histology", "malignant", "malignant", "1"): 9,
        ("with_histology", "malignant", "benign", "1"): 1,
        ("with_histology", "malignant", "none", "1"): 5,
        ("with_histology", "benign", "benign", "1"): 3,
        ("with_histology", "benign", "malignant", "1"): 1,
        ("with_histology", "benign", "none", "1"): 0,
        **{("with_histology", histology, label, "2"): 0 for histology in HISTOLOGIES for label in HISTOLOGIES},
        ("with_histology", "malignant", "none", "2"): 0,
        ("with_histology", "benign", "none", "2"): 1,
    }


def test_a_database_that_is_away_does_not_cost_the_other_metrics(caller, store):
    store.counts = None

    assert samples(store) == {("up",): 0}
    assert b"dermserve_gateway_cases_up 0.0" in caller.get("/metrics").data
    assert b"dermserve_gateway_requests_total" in caller.get("/metrics").data


def test_a_database_that_hangs_holds_up_no_scrape(store):
    hangs, asked = threading.Event(), []

    class Hanging(MemoryStore):
        def count(self, since):
            asked.append(since)
            assert hangs.wait(60)
            return []

    counts = figures.Counts(Hanging(), 0.01)
    pages = [figures.render(counts).decode() for _ in range(2)]
    hangs.set()

    assert all("dermserve_gateway_cases_up 0.0" in page for page in pages)
    assert len(asked) == 1


@pytest.mark.parametrize("body", [b"[" * 100_000, b"{", b"", b"[]"])
def test_a_finding_that_is_none_is_told(caller, body):
    kept_id = keep(caller)["id"]

    answer = caller.post(f"/api/v1/cases/{kept_id}/findings", data=body, content_type="application/json")

    assert answer.status_code == 422


@pytest.mark.parametrize("id", ["x", "F" * 32, "0" * 31, "%00" + "0" * 31, "0" * 33, "%F0%9F%A6%A0"])
def test_what_is_no_id_is_not_there_and_the_store_is_not_asked(audit, id):
    caller = create_app(Settings(), FixedPredictor(), audit=audit, case_store=DeadStore()).test_client()

    answers = [
        caller.get(f"/api/v1/cases/{id}"),
        caller.delete(f"/api/v1/cases/{id}"),
        caller.post(f"/api/v1/cases/{id}/findings", json={"agrees": True}),
    ]

    assert [answer.get_json(force=True)["type"] for answer in answers] == ["/problems/case-not-found"] * 3


class DeadStore(MemoryStore):
    """Does not answer."""

    def find(self, id):
        raise CasesUnavailable

    add_finding = erase = find


@pytest.mark.parametrize("query", ["limit=\u0663", "model_version=\u0663", f"cursor=\u0663.{'0' * 32}"])
def test_digits_are_those_of_the_document(caller, query):
    assert caller.get(f"/api/v1/cases?{query}").status_code == 422


def test_a_finding_that_is_nested_without_end_is_none(caller):
    case = keep(caller)

    answer = caller.post(f"/api/v1/cases/{case['id']}/findings", data="[" * 100_000, content_type="application/json")

    assert (answer.status_code, answer.get_json(force=True)["type"]) == (422, "/problems/invalid-case-request")


def test_a_case_has_one_picture(caller, store):
    answer = caller.post("/api/v1/cases", data=MultiDict([("file", (io.BytesIO(paint()), "x")) for _ in range(2)]))

    assert (answer.status_code, answer.get_json(force=True)["type"]) == (422, "/problems/too-many-pictures")
    assert not store.cases


def test_an_idempotency_key_is_refused_and_never_ignored(caller, store):
    case, key = keep(caller), {"Idempotency-Key": "8e03978e-40d5-43dd"}

    answers = [
        post(caller, paint(), "/api/v1/cases", headers=key),
        caller.post(f"/api/v1/cases/{case['id']}/findings", json={"agrees": True}, headers=key),
    ]

    assert [answer.get_json(force=True)["type"] for answer in answers] == ["/problems/bad-idempotency-key"] * 2
    assert not store.cases.pop(case["id"]).findings
    assert not store.cases
