import re

import pytest

from tests.processes import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED_FILE = re.compile(r"`((?:gateway|serving|training|web|tests|loadtests|scripts|docs|requirements)/[\w./-]*)`")
PLACEHOLDER = re.compile(r"/[A-Z]+(?:\.\w+)?$")


def ids(path):
    return str(path.relative_to(ROOT))


def anchors(document):
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_relative_link_leads_somewhere(document):
    links = [link for link in LINK.findall(document.read_text()) if "://" not in link]
    lost = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)

    assert not lost


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_file_that_is_named_exists(document):
    named = [name for name in NAMED_FILE.findall(document.read_text()) if not PLACEHOLDER.search(name)]

    assert [name for name in named if not (ROOT / name).exists()] == []


def test_there_are_documents_and_links():
    """Otherwise the tests above would prove nothing."""
    assert len(DOCUMENTS) > 5
    assert LINK.search((ROOT / "README.md").read_text())
    assert NAMED_FILE.search((ROOT / "ARCHITECTURE.md").read_text())
