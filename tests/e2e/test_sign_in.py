"""A person in Chromium signs in at a real provider, checks a picture, loses the session, and signs out."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests import processes, signing_in
from tests.e2e.test_pages import AXE_OPTIONS
from tests.e2e.visitor import Visitor, picture_file


@pytest.fixture
def hospital(tiny_server, tmp_path):
    port = processes.free_port()
    with signing_in.provider(tmp_path, f"http://127.0.0.1:{port}") as (_, issuer):
        settings = signing_in.settings(tmp_path, issuer, port) | {"GATEWAY_WORKERS": "1"}
        with processes.gateway(tiny_server[0], tmp_path, **settings) as (_, address):
            yield address


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_a_person_signs_in_and_checks_a_picture(hospital, browser, scripts):
    context = browser.new_context(base_url=hospital, java_script_enabled=scripts, viewport={"width": 320, "height": 640})
    context.add_cookies([{"name": "language", "value": "en", "url": hospital}])
    page, refused = context.new_page(), []
    page.on("console", lambda message: "Content Security Policy" in message.text and refused.append(message.text))
    visitor = Visitor(page, "en")
    try:
        page.goto("/check")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        if scripts:
            assert _violations(page) == []
        page.get_by_role("button", name="Go to the hospital's sign-in page").click()
        page.get_by_placeholder("Enter any login").fill("clinician-8")
        page.get_by_placeholder("and password").fill("any")
        page.get_by_role("button", name="Sign-in").click()
        page.get_by_role("button", name="Continue").click()

        expect(page).to_have_url(f"{hospital}/check")
        expect(page.get_by_text("Signed in: clinician")).to_be_visible()
        if scripts:
            assert _violations(page) == []
            assert page.evaluate("document.documentElement.scrollWidth") == 320
        visitor.fill(**picture_file("malignant"))
        visitor.button("check").click()
        expect(visitor.heading("malignant")).to_be_visible()
        if scripts:
            visitor.button("close").click()
            _lose_the_session(context, visitor)
        else:
            page.get_by_role("button", name="Sign out").click()
            page.get_by_role("button", name="Yes, sign me out").click()
            expect(page.get_by_role("heading", level=1)).to_have_text("You are signed out of Dermserve")
            page.goto("/check")
            expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        assert [text for text in refused if hospital in text] == []
    finally:
        context.close()


def _lose_the_session(context, visitor):
    """The picture is still there after signing in anew in another tab."""
    visitor.fill(**picture_file("benign"))
    context.clear_cookies(name="dermserve")
    visitor.button("check").click()
    alert = visitor.page.get_by_role("alert")
    expect(alert).to_contain_text("your session has ended")
    with context.expect_page() as opened:
        alert.get_by_role("link", name="Sign in, in a new tab").click()
    tab = opened.value
    # The provider still knows who it is.
    tab.get_by_role("button", name="Go to the hospital's sign-in page").click()
    expect(tab.get_by_text("Signed in: clinician")).to_be_visible()

    visitor.button("check").click()

    expect(visitor.heading("benign")).to_be_visible()


def _violations(page):
    return [
        (item["id"], [node["html"] for node in item["nodes"]])
        for item in Axe().run(page, options=AXE_OPTIONS).response["violations"]
    ]
