import re

import pytest

from tests.processes import ROOT

DECISIONS = sorted((ROOT / "docs" / "adr").glob("*.md"))
SECTIONS = ["Context", "Decision", "Consequences", "Alternatives"]


def test_numbers_have_no_gap_and_no_twin():
    assert [path.name[:5] for path in DECISIONS] == [f"{number:04}-" for number in range(1, len(DECISIONS) + 1)]
    assert len(DECISIONS) >= 6


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_has_its_number_and_its_sections(path):
    text = path.read_text()

    assert text.startswith(f"# {path.name[:4]}. ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_is_listed_under_its_title(path):
    title = path.read_text().splitlines()[0].removeprefix(f"# {path.name[:4]}. ")

    assert f"| [{path.name[:4]}](docs/adr/{path.name}) | {title} |" in (ROOT / "ARCHITECTURE.md").read_text()
