"""`lighthouse.py DOCUMENT`: Lighthouse's scores of the portal's pages, on a desktop and on a telephone; 1 where one is too low.

The table takes its place in DOCUMENT. Lighthouse slows a telephone's network and processor down by itself.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from scripts.documents import replace_block
from tests.e2e.conftest import ARGUMENTS, CHROMIUM
from tests.pictures import paint
from tests.portal_stack import portal
from tests.processes import ROOT
from tests.signing_in import NODE

MODULES = Path(os.environ.get("VENV_LIGHTHOUSE") or ROOT / ".venvs" / "lighthouse")
"""Where scripts/lighthouse.sh has put Lighthouse."""

PAGES = ("/", "/check", "/services", "/model", "/privacy", "/help")
LOWEST = {"accessibility": 100, "best-practices": 95, "performance": 95}
CATEGORIES = (*LOWEST, "seo")
"""The last one is for information: a hospital's portal need not be found by search engines."""

Measured = dict[str, Any]


def score_of(measured: Measured, category: str) -> int:
    """Of 100; Lighthouse gives none when an audit failed itself, and that counts as nothing."""
    return round((measured["scores"][category] or 0) * 100)


def shortfalls(measurements: list[Measured]) -> list[str]:
    """What is too low, and what Lighthouse remarked there."""
    return [
        "\n  ".join(
            (f"{measured['page']}, {measured['form_factor']}: {category} {score} < {lowest}", *_remarks(measured, category))
        )
        for measured in measurements
        for category, lowest in LOWEST.items()
        if (score := score_of(measured, category)) < lowest
    ]


def table(measurements: list[Measured]) -> str:
    """The scores as Markdown."""
    lines = ["| page | form factor | " + " | ".join(CATEGORIES) + " |", "|---" * (2 + len(CATEGORIES)) + "|"]
    for measured in measurements:
        cells = [measured["page"], measured["form_factor"], *(str(score_of(measured, category)) for category in CATEGORIES)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _remarks(measured: Measured, category: str) -> list[str]:
    return [remark.partition(" | ")[2] for remark in measured["remarks"] if remark.startswith(f"{category} | ")]


def measure() -> list[Measured]:
    """Start the portal and measure each page, a result among them."""
    with tempfile.TemporaryDirectory(prefix="dermserve-lighthouse-") as name:
        folder = Path(name)
        picture = folder / "picture.png"
        picture.write_bytes(paint("malignant"))
        with portal(folder) as (address, sign_in):
            pages = [{"name": path, "url": f"{address}{path}"} for path in PAGES]
            pages.append({"name": "result", "url": f"{address}/check", "picture": str(picture)})
            pages.append({"name": "sign-in", "url": f"{sign_in}/sign-in"})
            asked = {"chromium": CHROMIUM or _playwrights_own(), "arguments": ARGUMENTS, "pages": pages}
            command = [str(NODE), "tests/lighthouse/measure.mjs", str(MODULES), json.dumps(asked)]
            run = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def _playwrights_own() -> str:
    with sync_playwright() as playwright:
        return playwright.chromium.executable_path


def main(document: Path) -> int:
    """Measure, write, judge."""
    measurements = measure()
    print(table(measurements), end="")
    replace_block(document, "lighthouse", table(measurements))
    found = shortfalls(measurements)
    print("\n".join(found) or "Every score is high enough.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
