"""The black-box table (tests/e2e/black_box.py), row by row, and that docs/black-box.md is this table."""

import csv
import json

import pytest
from playwright.sync_api import expect

from scripts.black_box import render
from tests import processes
from tests.conftest import DATA
from tests.e2e.black_box import BENIGN, MALIGNANT, OUTSIDE, ROWS, UNCERTAIN, options, perform

DOCUMENT = processes.ROOT / "docs" / "black-box.md"
HEADINGS = {"malignant": MALIGNANT, "benign": BENIGN, "uncertain": UNCERTAIN, "out_of_scope": OUTSIDE}
REAL_LABELS = ("malignant", "benign", "premalignant", "none")


@pytest.fixture(scope="module")
def page_for(browser, stack):
    """One page for each kind of browser: a row loads it anew."""
    pages, complaints = {}, []

    def find(way):
        if way not in pages:
            context = browser.new_context(base_url=stack[0], **options(way))
            context.add_cookies([{"name": "language", "value": "en", "url": stack[0]}])
            context.on("weberror", lambda error: complaints.append(error.error))
            pages[way] = context.new_page()
        return pages[way]

    yield find
    for page in pages.values():
        page.context.close()
    assert complaints == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.number)
def test_the_row_holds(page_for, row):
    assert perform(row, page_for(row.way)) == row.says[0]


def test_the_document_is_the_table():
    assert DOCUMENT.read_text() == render({row.number: row.says[0] for row in ROWS}), "run make black-box"


def test_numbers_are_given_once():
    assert len({row.number for row in ROWS}) == len(ROWS) > 40


@pytest.mark.skipif(not (DATA / "labels.csv").exists(), reason="no real pictures: set DERMSERVE_DATA")
@pytest.mark.parametrize("label", REAL_LABELS)
def test_a_real_picture_gets_what_the_api_says(visit, stack, label):
    """The first of its label in the test split; the tiny model goes by its colours."""
    with (DATA / "labels.csv").open() as file:
        path = next(row["path"] for row in csv.DictReader(file) if (row["label"], row["split"]) == (label, "test"))
    data = (DATA / path).read_bytes()
    said = json.loads(processes.post_picture(stack[0], data).content)
    visitor = visit("en")
    visitor.page.goto("/check")

    visitor.fill(name=f"picture{(DATA / path).suffix}", mimeType="image/jpeg", buffer=data)
    visitor.button("check").click()

    expect(visitor.result.get_by_role("heading").first).to_have_text(HEADINGS[said["reason"] or said["label"]])
