"""A browser over the whole stack: model server, gateway and Chromium as they run for people."""

import os
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import sync_playwright

from tests.e2e.visitor import Visitor

# Empty where Playwright has brought its own (scripts/test.sh).
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium") or None
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, stack):
    """Makes a visitor with cookies of their own. Always: no script fails, the policy holds, nothing leaves the site."""
    address, _ = stack
    visitors = []

    def make(language="id", **options):
        context = browser.new_context(base_url=address, **options)
        if language != "id":
            context.add_cookies([{"name": "language", "value": language, "url": address}])
        visitors.append((context, complaints := []))
        _listen(context, urlsplit(address).netloc, complaints)
        return Visitor(context.new_page(), language)

    yield make
    for context, _ in visitors:
        context.close()
    assert [complaint for _, complaints in visitors for complaint in complaints] == []


def _listen(context, host, complaints):
    def check_request(request):
        parts = urlsplit(request.url)
        if parts.scheme != "blob" and parts.netloc != host:
            complaints.append(f"request to {request.url}")

    def check_response(response):
        if response.status >= 400 and "/static/" in response.url:
            complaints.append(f"{response.status} for {response.url}")

    def check_console(message):
        # Chromium itself reports every answer of 400 and more, and those are wanted here; the rest is ours.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            complaints.append(f"console: {message.text}")

    context.on("request", check_request)
    context.on("response", check_response)
    context.on("console", check_console)
    context.on("weberror", lambda error: complaints.append(f"script: {error.error}"))
