"""What people see where they sign in and cases are kept, by their role. A session takes no provider: only its key."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from playwright.sync_api import expect

from gateway import sessions
from gateway.audit.verification import verify
from gateway.cases import database, migration
from gateway.cases.record import Finding, KeptCase
from gateway.cases.store import DatabaseStore
from gateway.settings import Settings
from tests import processes, signing_in
from tests.e2e.test_pages import LOOKS, violations

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OUTCOMES = (("malignant", None), ("benign", None), ("none", "uncertain"), ("none", "out_of_scope"))
KEPT = 22
"""More than one page of them."""

OLDEST = f"/cases/{0:032x}"
"""With two findings."""

NEWEST = f"/cases/{KEPT - 1:032x}"
STATES = (
    *("/cases", "/cases?label=benign", "/cases?model_version=7", "/cases?model_version=x", OLDEST, NEWEST, "/cases/none"),
    *("/", "/privacy", "/sign-in", "/signed-out"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hospital")


@pytest.fixture(scope="module")
def stack(tiny_server, folder):
    """Address of a gateway with a case record and an audit record, where people sign in, and its program."""
    settings = Settings(cases_database=f"sqlite:///{folder}/cases.db")
    engine = database.connect(settings)
    migration.upgrade(engine)
    _keep_cases(DatabaseStore(engine))
    engine.dispose()
    port = processes.free_port()
    environment = signing_in.settings(folder, "http://127.0.0.1:9", port) | {
        "GATEWAY_WORKERS": "1",
        "GATEWAY_CASES_DATABASE": settings.cases_database,
        "GATEWAY_AUDIT_FILE": str(folder / "audit.jsonl"),
    }
    with processes.gateway(tiny_server[0], folder, **environment) as (program, address):
        yield address, program


def _keep_cases(store):
    for number in range(KEPT):
        label, reason = OUTCOMES[number % len(OUTCOMES)]
        malignant, moment = number / KEPT, NOON + timedelta(minutes=number)
        case = KeptCase(f"{number:032x}", moment, "person:4711", f"{number:064x}", label, reason, malignant, 0.5, 1)
        store.keep(case, lambda: None)
    for agrees, histology in ((True, None), (False, "benign")):
        store.add_finding(f"{0:032x}", Finding(NOON, "person:4711", agrees, histology), lambda: None)


@pytest.fixture
def enter(visit, stack, folder):
    """Makes a visitor who has signed in with a role."""

    def enter(role, language="en", **options):
        visitor = visit(language, **options)
        app = Flask("sessions")
        sessions.init_app(app, Settings(session_key_file=str(folder / "session.key"), public_url=stack[0]))
        now = int(time.time())
        content = {"account": "4711", "role": role, "began": now, "used": now}
        value = app.session_interface.get_signing_serializer(app).dumps(content)
        cookie = {"name": app.config["SESSION_COOKIE_NAME"], "value": value, "url": stack[0]}
        visitor.page.context.add_cookies([cookie])
        return visitor

    return enter


def links(page):
    return page.get_by_role("navigation", name="Main").get_by_role("link").all_inner_texts()


@pytest.mark.parametrize(("language", "scheme"), LOOKS)
def test_axe_finds_nothing(enter, language, scheme):
    page = enter("admin", language, color_scheme=scheme).page
    found = {}
    for path in STATES:
        page.goto(path)
        found[path] = violations(page)
    # Without the browser's own bubble the server is asked, which says what is missing.
    page.goto(NEWEST)
    page.locator("form.finding").evaluate("form => { form.noValidate = true; form.requestSubmit(); }")
    expect(page.get_by_role("alert")).to_be_focused()
    found["incomplete"] = violations(page)

    assert {path: items for path, items in found.items() if items} == {}


def test_everything_fits_a_screen_of_320_pixels_and_text_of_twice_the_size(enter):
    page = enter("admin", "id", viewport={"width": 320, "height": 640}).page
    for width, size in ((320, "100%"), (640, "200%")):
        page.set_viewport_size({"width": width, "height": 640})
        for path in STATES:
            page.goto(path)
            page.evaluate("size => document.documentElement.style.setProperty('font-size', size)", size)
            assert page.evaluate("document.documentElement.scrollWidth") == width, path


def test_on_a_phone_the_list_is_still_a_table_and_shows_each_cell(enter):
    page = enter("viewer", viewport={"width": 360, "height": 740}).page
    page.goto("/cases")

    row = page.get_by_role("table").get_by_role("row").nth(1)
    expect(row.get_by_role("cell")).to_have_count(3)
    box = row.bounding_box()
    for cell in row.get_by_role("cell").all():
        assert cell.bounding_box()["width"] > 60
        assert cell.bounding_box()["x"] + cell.bounding_box()["width"] <= box["x"] + box["width"] + 1


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_a_clinician_finds_a_case_and_adds_a_finding(enter, folder, scripts):
    page = enter("clinician", java_script_enabled=scripts).page
    page.goto("/")
    page.get_by_role("link", name="Cases", exact=True).click()
    page.get_by_label("Class").select_option("benign")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.get_by_role("table").get_by_role("row")).to_have_count(1 + 6)
    page.get_by_role("table").get_by_role("link").first.click()
    expect(page.get_by_role("heading", name="Add a finding")).to_be_visible()
    before = page.locator(".findings li").count()

    page.get_by_role("group", name="Do you agree").get_by_label("No").check()
    page.get_by_role("group", name="Histology").get_by_label("malignant").check()
    page.get_by_role("button", name="Add the finding").click()

    expect(page.get_by_role("status")).to_contain_text("The finding was added")
    expect(page.locator(".findings li")).to_have_count(before + 1)
    expect(page.locator(".findings li").last).to_contain_text("Histology: malignant")
    page.reload()
    expect(page.locator(".findings li")).to_have_count(before + 1)
    assert '"action":"write_finding"' in (folder / "audit.jsonl").read_text()
    assert verify([folder / "audit.jsonl"])


def test_the_older_cases_are_on_the_next_page_and_the_language_keeps_the_filter(enter):
    page = enter("viewer").page
    page.goto("/cases")
    expect(page.get_by_text("20 cases on this page")).to_be_visible()
    page.get_by_role("link", name="Older cases").click()
    expect(page.get_by_text("2 cases on this page")).to_be_visible()
    page.get_by_role("link", name="Newest cases").click()
    expect(page).to_have_url("/cases")

    page.goto("/cases?label=malignant")
    page.get_by_role("button", name="Bahasa Indonesia").click()

    expect(page).to_have_url("/cases?label=malignant")
    expect(page.get_by_text("6 kasus di halaman ini")).to_be_visible()


def test_a_second_press_while_the_first_is_under_way_is_stopped(enter):
    page = enter("clinician").page
    page.goto(f"/cases/{5:032x}")
    page.get_by_label("Yes").check()

    # Looked at behind the page's own script, and sent to nobody: a browser would give the first one up for the second.
    stopped = page.locator("form.finding").evaluate(
        """form => { const stopped = [];
                     addEventListener("submit", (event) => { stopped.push(event.defaultPrevented); event.preventDefault(); });
                     form.requestSubmit(); form.requestSubmit();
                     return stopped; }"""
    )

    assert stopped == [False, True]


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("viewer", ["Home", "Our services", "Cases", "About the model", "Help"]),
        ("clinician", ["Home", "Our services", "Check", "Cases", "About the model", "Help"]),
        ("", ["Home", "Our services", "Check", "About the model", "Help"]),
    ],
)
def test_people_are_offered_what_they_may(enter, role, expected):
    page = enter(role).page
    page.goto("/")

    assert links(page) == expected
    page.goto(NEWEST)
    expect(page.get_by_role("button", name="Add the finding")).to_have_count(1 if role == "clinician" else 0)
    expect(page.get_by_role("heading", name="Case 00000000")).to_have_count(1 if role else 0)


def test_strangers_are_asked_to_sign_in_and_come_back_to_the_case(visit):
    page = visit("en").page
    page.goto(NEWEST)

    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    expect(page.locator("input[name=next][type=hidden]").last).to_have_value(NEWEST)
    # The provider is away.
    page.get_by_role("button", name="Go to the hospital's sign-in page").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("The hospital's sign-in page cannot be reached")
    assert violations(page) == []


def test_on_paper_a_case_has_its_facts_and_no_form(enter):
    page = enter("clinician", color_scheme="dark").page
    page.goto(OLDEST)
    page.emulate_media(media="print")

    expect(page.get_by_role("heading", name="What was kept")).to_be_visible()
    expect(page.locator(".findings li")).to_have_count(2)
    expect(page.get_by_role("button", name="Add the finding")).to_be_hidden()
    expect(page.get_by_role("link", name="Kept cases")).to_be_hidden()
