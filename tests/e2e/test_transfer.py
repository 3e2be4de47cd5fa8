"""What a first visit costs and asks for: bytes on the wire, no other site, nothing inline. `-s` prints the bytes."""

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.e2e.visitor import picture_file

LIMIT_BYTES = 150_000
PAGES = ("/", "/check", "/model", "/no-such-page")
INLINE = {
    "a script without a source": r"<script(?![^>]*\ssrc=)[^>]*>",
    "a style element": r"<style\b",
    "a style attribute": r"<[^>]*\sstyle\s*=",
    "a handler": r"<[^>]*\son[a-z]+\s*=",
    "an address that is a script": r"=\s*[\"']?\s*javascript:",
    "another site's file": r"<(?:script|link|img|source|iframe|use)\b[^>]*\s(?:src|href|srcset)\s*=\s*[\"']?\s*(?:[a-z]+:)?//",
}
UNSAFE = re.compile(r"unsafe-|\*|https?:|data:|blob:")


class Wire:
    """What a page's browser receives, headers included, as Chromium counts it."""

    def __init__(self, page):
        self.received: dict[str, int] = {}
        self.addresses: dict[str, str] = {}
        session = page.context.new_cdp_session(page)
        session.on("Network.requestWillBeSent", self._note)
        session.on("Network.loadingFinished", self._count)
        session.send("Network.enable")
        session.send("Network.setCacheDisabled", {"cacheDisabled": False})

    def _note(self, event):
        self.addresses[event["requestId"]] = event["request"]["url"]

    def _count(self, event):
        self.received[event["requestId"]] = int(event["encodedDataLength"])

    @property
    def total(self):
        return sum(self.received.values())

    @property
    def hosts(self):
        parts = [urlsplit(address) for address in self.addresses.values()]
        return {part.netloc for part in parts if part.scheme not in ("blob", "data")}


def test_the_check_page_costs_little_and_asks_nobody_else(visit, stack):
    visitor = visit()
    wire = Wire(visitor.page)
    visitor.page.goto("/check", wait_until="networkidle")
    page_bytes, files = wire.total, len(wire.received)
    visitor.fill(**picture_file("malignant"))
    with visitor.page.expect_event("requestfinished", lambda request: request.method == "POST"):
        visitor.button("check").click()
    expect(visitor.heading("malignant")).to_be_visible()

    print(f"\n/check: {page_bytes} bytes in {files} answers; with everything up to the result {wire.total} bytes")  # noqa: T201  (docs/portal.md)
    assert files > 3
    assert 5_000 < page_bytes <= wire.total < LIMIT_BYTES
    assert wire.hosts == {urlsplit(stack[0]).netloc}


@pytest.mark.parametrize("path", PAGES)
def test_nothing_is_inline_and_the_policy_allows_nothing_unsafe(visit, path):
    answer = visit().page.goto(path)
    text = answer.text()
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))

    assert "<script" in text
    assert [what for what, pattern in INLINE.items() if re.search(pattern, text, re.IGNORECASE)] == []
    assert policy["default-src"] == "'none'"
    assert re.fullmatch(r"'nonce-[\w-]{20,}'(?: 'strict-dynamic')?", policy["script-src"])
    assert policy["style-src"] == "'self'"
    assert [name for name, value in policy.items() if name not in ("img-src",) and UNSAFE.search(value)] == []
    assert set(policy["img-src"].split()) <= {"'self'", "blob:", "data:"}
