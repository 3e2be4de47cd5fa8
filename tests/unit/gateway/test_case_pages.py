import re

import pytest
from flask import Flask, g

from gateway import case_pages, identity
from gateway.app import create_app
from gateway.case_book import CaseBook
from gateway.errors import CasesUnavailable, InvalidCaseRequest
from gateway.identity import Identity
from gateway.settings import Settings
from tests.unit.gateway.test_app import FixedPredictor
from tests.unit.gateway.test_cases_api import ListAudit, MemoryStore, kept


@pytest.fixture
def store():
    store = MemoryStore()
    for number in range(3):
        case = kept(number, label="malignant" if number else "benign", malignant=0.1 * number)
        store.cases[case.id] = case
    return store


@pytest.fixture
def audit():
    return ListAudit()


@pytest.fixture
def caller(store, audit):
    caller = create_app(Settings(), FixedPredictor(), audit=audit, case_store=store).test_client()
    caller.set_cookie("language", "en")
    return caller


def shown(page):
    """The cases on the list, by their numbers."""
    return [int(number, 16) for number in re.findall(r'href="/cases/([0-9a-f]{32})"', page.text)]


ADDRESS = f"/cases/{1:032x}"


def test_the_list_shows_the_newest_first_and_records_which(caller, audit):
    page = caller.get("/cases")

    assert shown(page) == [2, 1, 0]
    assert "3 cases on this page" in page.text
    assert page.headers["Cache-Control"] == "no-store"
    assert [(event.action, len(event.cases)) for event in audit.events] == [("read_cases", 3)]


def test_what_a_form_leaves_empty_filters_nothing(caller):
    assert shown(caller.get("/cases?label=&model_version=&picture_sha256=")) == [2, 1, 0]
    page = caller.get("/cases?label=benign&model_version=+")

    assert shown(page) == [0]
    assert "1 case on this page" in page.text


def test_pages_lead_on_with_their_filter(caller, store):
    store.cases = {case.id: case for case in (kept(number) for number in range(45))}
    pages, address = [], "/cases?label=benign"
    while address:
        page = caller.get(address)
        pages.append(shown(page))
        following = re.search(r'href="([^"]+)" rel="next"', page.text)
        address = following and following[1].replace("&amp;", "&")
        assert not address or "label=benign" in address

    assert [len(numbers) for numbers in pages] == [20, 20, 5]
    assert [number for numbers in pages for number in numbers] == sorted(range(45), reverse=True)


@pytest.mark.parametrize("query", ["label=x", "model_version=x", "picture_sha256=ab"])
def test_a_filter_that_is_none_shows_no_case_and_leaves_the_form(caller, audit, query):
    page = caller.get(f"/cases?{query}")

    assert page.status_code == 422
    assert "The filter cannot be used" in page.text
    assert shown(page) == []
    assert audit.events == []


def test_an_empty_list_says_why(caller, store):
    store.cases = {}

    assert "No case has been kept yet" in caller.get("/cases").text
    assert "No case fits" in caller.get("/cases?label=benign").text


def test_a_finding_is_added_once_recorded_and_shown(caller, store, audit):
    answer = caller.post(f"{ADDRESS}/findings", data={"agrees": "no", "histology": "benign", "note": "Mr Budi"})

    assert (answer.status_code, answer.headers["Location"]) == (303, f"{ADDRESS}?added=yes")
    page = caller.get(answer.headers["Location"])
    for text in ("The finding was added", "1 finding.", "Does not agree with the answer", "Histology: benign"):
        assert text in page.text
    (finding,) = store.cases[f"{1:032x}"].findings
    assert (finding.agrees, finding.histology, finding.found_by) == (False, "benign", "anybody")
    assert [(event.action, event.reason) for event in audit.events] == [("write_finding", "benign"), ("read_cases", None)]


def test_a_finding_without_an_answer_changes_nothing_and_says_what_is_missing(caller, store):
    page = caller.post(f"{ADDRESS}/findings", data={"histology": "malignant"})

    assert page.status_code == 422
    assert "Nothing was added" in page.text
    assert re.search(r'value="malignant" checked', page.text)
    assert f'name="next" value="{ADDRESS}/findings"' in page.text
    assert caller.get(f"{ADDRESS}/findings").headers["Location"] == ADDRESS
    assert store.cases[f"{1:032x}"].findings == ()


@pytest.mark.parametrize(
    ("path", "form", "status"),
    [
        (f"{ADDRESS}/findings", {"agrees": "yes", "histology": "Mr Budi"}, 422),
        ("/cases/none/findings", {"agrees": "yes"}, 404),
        ("/cases/none/findings", {}, 404),
        ("/cases/none", None, 404),
        ("/cases?cursor=x", None, 422),
    ],
)
def test_what_no_form_sends_is_a_problem_that_leads_to_the_list(caller, path, form, status):
    page = caller.get(path) if form is None else caller.post(path, data=form)

    assert page.status_code == status
    assert 'class="problem"' in page.text
    assert 'href="/cases">To the kept cases' in page.text
    assert "Budi" not in page.text


def test_without_a_record_no_case_is_shown_and_no_finding_kept(caller, store, audit):
    audit.fails = True

    pages = [caller.get("/cases"), caller.get(ADDRESS), caller.post(f"{ADDRESS}/findings", data={"agrees": "yes"})]

    assert [page.status_code for page in pages] == [503] * 3
    assert not any(shown(page) or "10.0%" in page.text for page in pages)
    assert store.cases[f"{1:032x}"].findings == ()


def test_another_site_adds_no_finding(caller, store):
    answer = caller.post(f"{ADDRESS}/findings", data={"agrees": "yes"}, headers={"Sec-Fetch-Site": "cross-site"})

    assert answer.status_code == 403
    assert store.cases[f"{1:032x}"].findings == ()


def test_a_database_that_is_away_is_said_in_the_portals_clothes(caller, store):
    def fail(*_):
        raise CasesUnavailable

    store.page = fail
    page = caller.get("/cases")

    assert page.status_code == 503
    assert "The case record cannot be reached" in page.text


def test_without_a_database_there_are_neither_pages_nor_a_way_to_them():
    caller = create_app(Settings(), FixedPredictor()).test_client()

    assert caller.get("/cases").status_code == 404
    assert 'href="/cases"' not in caller.get("/").text


def writer(store, audit, *permissions):
    app = Flask("writers")
    app.testing = True
    identity.init_app(app, lambda: Identity("key:writer", frozenset(permissions)))
    app.before_request(lambda: setattr(g, "request_id", "request-1"))
    app.register_blueprint(case_pages.blueprint(CaseBook(store, audit)))
    return app.test_client()


def test_an_incomplete_finding_shows_no_case_to_those_who_may_not_read(store, audit):
    with pytest.raises(InvalidCaseRequest):
        writer(store, audit, "write_cases").post(f"{ADDRESS}/findings", data={})

    assert audit.events == []
