"""`black_box.py DOCUMENT`: performs the black-box table over a running portal, writes what was seen; 1 where a row failed."""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Error, sync_playwright

from tests.e2e.black_box import SECTIONS, Row, options, perform
from tests.e2e.conftest import ARGUMENTS, CHROMIUM
from tests.portal_stack import portal

HEAD = """# Black-box test of the upload and its result

`make black-box` performs every row in Chromium, against a gateway and a model server that run, and writes this page; the same
rows are tests (`tests/e2e/test_black_box.py`). The model is the tests' tiny one, which goes by colours: the table tells whether
the portal shows what the model has said, and nothing about how good a model is (that is in the [model card](model-card.md)).
All pictures are painted. The portal is in English here; every wording has its Indonesian one.
"""
FAILED = "**failed**"


def render(seen: dict[str, str]) -> str:
    """The document.

    Args:
        seen: number of a row -> the heading that was seen, or why there was none.
    """
    rows = [row for rows in SECTIONS.values() for row in rows]
    passed = sum(seen[row.number] == row.says[0] for row in rows)
    parts = [HEAD, f"{passed} of {len(rows)} rows passed.\n"]
    for section, rows in SECTIONS.items():
        parts.append(f"## {section}\n")
        parts.append("| row | what is done | what must be seen | seen | |\n|---|---|---|---|---|")
        parts.extend(_line(row, seen[row.number]) for row in rows)
        parts.append("")
    return "\n".join(parts)


def _line(row: Row, seen: str) -> str:
    verdict = "passed" if seen == row.says[0] else FAILED
    cells = (row.number, row.done, row.expected, f"“{seen}”", verdict)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def see(browser: Browser, address: str, row: Row) -> str:
    """Perform a row with cookies of its own."""
    context = browser.new_context(base_url=address, **options(row.way))
    context.add_cookies([{"name": "language", "value": "en", "url": address}])
    try:
        return perform(row, context.new_page())
    except (AssertionError, Error) as error:
        return str(error).partition("\n")[0]
    finally:
        context.close()


def main(document: Path) -> int:
    """Perform, write, judge."""
    with (
        tempfile.TemporaryDirectory(prefix="dermserve-black-box-") as folder,
        portal(Path(folder)) as (address, _),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        rows = [row for rows in SECTIONS.values() for row in rows]
        seen = {row.number: see(browser, address, row) for row in rows}
        browser.close()
    text = render(seen)
    document.write_text(text)
    failed = [row.number for row in rows if seen[row.number] != row.says[0]]
    print(f"{len(rows) - len(failed)} of {len(rows)} rows passed" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
