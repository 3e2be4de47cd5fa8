"""The same check in a browser that runs no script."""

import pytest
from playwright.sync_api import expect

from tests.e2e.visitor import picture_file

OUTCOMES = ("malignant", "benign", "uncertain", "guarded", "out_of_scope")


@pytest.fixture
def visitor(visit):
    return visit(java_script_enabled=False)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_picture_gets_its_result_on_a_page(visitor, outcome):
    visitor.page.goto("/")
    visitor.button("start").click()
    visitor.page.wait_for_url("**/check?")
    visitor.fill(**picture_file(outcome, name="Budi-Santoso.png"))

    visitor.button("check").click()

    expect(visitor.page.get_by_role("heading", level=1)).to_have_text(visitor.words[outcome])
    expect(visitor.page.get_by_role("heading", name="Langkah selanjutnya")).to_be_visible()
    expect(visitor.page.get_by_role("banner")).to_be_visible()
    assert "Budi" not in visitor.page.content()


@pytest.mark.parametrize(
    ("data", "heading"),
    [(b"text", "Berkas ini bukan gambar yang dapat dibaca"), (bytes(21_000_000), "Berkas terlalu besar")],
    ids=["text", "too large"],
)
def test_a_file_that_cannot_be_assessed_gets_a_page_that_leads_back(visitor, data, heading):
    visitor.page.goto("/check")
    visitor.fill(name="x.png", mimeType="image/png", buffer=data)

    visitor.button("check").click()

    expect(visitor.page.get_by_role("heading", level=1)).to_have_text(heading)
    visitor.page.get_by_role("link", name="Ke halaman pemeriksaan").click()
    expect(visitor.button("check")).to_be_visible()


def test_nothing_that_needs_a_script_is_offered(visitor):
    visitor.page.goto("/check")

    expect(visitor.page.get_by_text("atau letakkan di sini")).to_be_hidden()
    expect(visitor.page.get_by_text("Ambil foto")).to_be_hidden()
    expect(visitor.page.get_by_role("progressbar")).to_be_hidden()
    expect(visitor.file).to_be_visible()


def test_the_language_is_one_click_away_and_stays(visitor):
    visitor.page.goto("/check")

    visitor.page.get_by_role("button", name="English").click()

    expect(visitor.page).to_have_url("/check")
    expect(visitor.page.get_by_role("heading", level=1)).to_have_text("Check a picture of a skin lesion")
