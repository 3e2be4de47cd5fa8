"""`screenshots.py DOCS`: the portal's main states as pictures in DOCS/screenshots, and their gallery in DOCS/portal.md.

In both languages, on a desktop and on a telephone, some of them in dark colours too. Pictures are painted, and a fixed case
code and time stand in place of the real ones: on one machine the same page gives the same file.
"""

import io
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from scripts.documents import replace_block
from tests.e2e.conftest import ARGUMENTS, CHROMIUM
from tests.e2e.visitor import Visitor
from tests.pictures import encode
from tests.portal_stack import portal

LANGUAGES = {"id": "Indonesian", "en": "English"}
SCREENS = {"desktop": (1280, 800), "phone": (360, 740)}
DARK = ("home", "malignant")
"""States that are taken in dark colours too, in the first language."""

COLOURS = {"malignant": (190, 110, 95), "benign": (78, 58, 46), "uncertain": (102, 74, 62), "out_of_scope": (60, 110, 200)}
"""Mean colours: by them the tiny model decides."""

MAX_HEIGHT = 6000
CASE_CODE = re.compile(r"^[0-9a-f]{8}(-\d+)?$")
ALBUM_WIDTHS = {"desktop": 480, "phone": 180}


@dataclass(frozen=True)
class State:
    """Something that a visitor sees.

    Attributes:
        show: brings a page there, and gives the dialog that must be seen whole, if one is open.
        asks_who: whether it is a page of the gateway where people sign in.
    """

    title: str
    show: Callable[[Visitor], Locator | None]
    asks_who: bool = False


def lesion(outcome: str) -> dict[str, object]:
    """A blot on skin, painted, sharp enough not to be called blurred."""
    height, width = 400, 600
    y, x = np.mgrid[-1 : 1 : height * 1j, -1.5 : 1.5 : width * 1j]
    rng = np.random.default_rng(1)
    noise = Image.fromarray(rng.integers(0, 256, (30, 45), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    grain = np.asarray(noise, dtype=float) / 255 - 0.5
    blot = 1 / (1 + np.exp(18 * (np.hypot(x, 1.25 * y) - 0.62 + 0.25 * grain)))
    shade = -(blot - blot.mean()) + 0.35 * (grain - grain.mean())
    pixels = np.array(COLOURS[outcome]) + 42 * shade[..., None] + rng.normal(0, 5, (height, width, 1))
    return {
        "name": "picture.png",
        "mimeType": "image/png",
        "buffer": encode(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), "PNG"),
    }


def page_at(path: str) -> Callable[[Visitor], None]:
    """Show a page as it is."""

    def show(visitor: Visitor) -> None:
        visitor.page.goto(path)

    return show


def form(visitor: Visitor) -> Locator:
    """The dialog with a picture chosen."""
    visitor.open_dialog()
    visitor.fill(**lesion("benign"))
    expect(visitor.page.get_by_role("dialog").get_by_role("img").first).to_be_visible()
    return visitor.page.get_by_role("dialog")


def problem(visitor: Visitor) -> Locator:
    """A file that is no picture."""
    visitor.open_dialog()
    visitor.fill(name="notes.txt", mimeType="text/plain", buffer=b"text")
    visitor.button("check").click()
    expect(visitor.page.get_by_role("alert")).to_be_visible()
    return visitor.page.get_by_role("dialog")


def result(outcome: str) -> Callable[[Visitor], Locator]:
    """The answer to a painted picture."""

    def show(visitor: Visitor) -> Locator:
        visitor.open_dialog()
        visitor.fill(**lesion(outcome))
        visitor.button("check").click()
        expect(visitor.heading(outcome)).to_be_visible()
        return visitor.result

    return show


def several(visitor: Visitor) -> Locator:
    """Three pictures at once, one of which is none."""
    visitor.open_dialog()
    notes = {"name": "notes.txt", "mimeType": "image/png", "buffer": b"text"}
    visitor.file.set_input_files([lesion("malignant"), notes, lesion("benign")])
    visitor.consent.check()
    visitor.button("check").click()
    expect(visitor.page.get_by_role("article")).to_have_count(2)
    return visitor.result


STATES = {
    "home": State("Home page", page_at("/")),
    "form": State("The check, a picture chosen", form),
    "problem": State("A file that cannot be assessed", problem),
    "malignant": State("Malignant", result("malignant")),
    "benign": State("Benign", result("benign")),
    "uncertain": State("Uncertain", result("uncertain")),
    "out-of-scope": State("Outside what the model can assess", result("out_of_scope")),
    "several": State("Several pictures at once", several),
    "check": State("The check as a page", page_at("/check")),
    "services": State("Our services", page_at("/services")),
    "help": State("Help and limits", page_at("/help")),
    "model": State("About the model", page_at("/model")),
    "sign-in": State("Sign in", page_at("/sign-in"), asks_who=True),
}


def take(browser: Browser, address: str, state: State, language: str, screen: str, scheme: str) -> bytes:
    """One state as WebP."""
    width, height = SCREENS[screen]
    context = browser.new_context(
        base_url=address,
        viewport={"width": width, "height": height},
        has_touch=screen == "phone",
        is_mobile=screen == "phone",
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    context.add_cookies([{"name": "language", "value": language, "url": address}])
    try:
        page = context.new_page()
        dialog = state.show(Visitor(page, language))
        hide_what_changes(page)
        if dialog is not None:
            grow(page, dialog, width, height)
        page.mouse.move(0, 0)
        shot = page.screenshot(full_page=dialog is None, animations="disabled", caret="hide", scale="css")
    finally:
        context.close()
    buffer = io.BytesIO()
    Image.open(io.BytesIO(shot)).convert("RGB").save(buffer, "WEBP", lossless=True, quality=70, method=4)
    return buffer.getvalue()


def hide_what_changes(page: Page) -> None:
    """Case code and time."""
    for code in page.get_by_text(CASE_CODE).all():
        code.evaluate("code => { code.textContent = '0a1b2c3d'; }")
    for time in page.get_by_role("article").get_by_role("time").all():
        time.evaluate("time => { time.textContent = '2026-01-01 09:00'; }")


def grow(page: Page, dialog: Locator, width: int, height: int) -> None:
    """Make the window so high that the dialog need not scroll."""
    hidden = "dialog => Math.max(dialog.scrollHeight - dialog.clientHeight, 0)"
    while (missing := dialog.evaluate(hidden)) > 0 and height < MAX_HEIGHT:
        height += missing + 16
        page.set_viewport_size({"width": width, "height": height})
    dialog.evaluate("dialog => dialog.scrollTo(0, 0)")


def gallery(names: list[str]) -> str:
    """The pictures under their states, as Markdown; the widths are those they are shown at."""
    parts = []
    for key, state in STATES.items():
        parts.append(f"### {state.title}\n")
        for name in (name for name in names if name.startswith(f"{key}.")):
            _, language, screen, *dark = name.removesuffix(".webp").split(".")
            text = f"{state.title}, {LANGUAGES[language]}, {screen}{', dark' if dark else ''}"
            parts.append(f'<img src="screenshots/{name}" alt="{text}" width="{ALBUM_WIDTHS[screen]}">')
        parts.append("")
    return "\n".join(parts)


def main(docs: Path) -> None:
    """Take all, forget what was taken before."""
    folder = docs / "screenshots"
    folder.mkdir(exist_ok=True)
    taken: dict[str, bytes] = {}
    with (
        tempfile.TemporaryDirectory(prefix="dermserve-screenshots-") as temporary,
        portal(Path(temporary)) as (address, closed),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        for key, state in STATES.items():
            for language in LANGUAGES:
                for screen in SCREENS:
                    for scheme in ("light", "dark") if key in DARK and language == "id" else ("light",):
                        name = f"{key}.{language}.{screen}{'.dark' if scheme == 'dark' else ''}.webp"
                        where = closed if state.asks_who else address
                        taken[name] = take(browser, where, state, language, screen, scheme)
        browser.close()
    for old in folder.glob("*.webp"):
        old.unlink()
    for name, data in taken.items():
        (folder / name).write_bytes(data)
    replace_block(docs / "portal.md", "gallery", gallery(list(taken)))
    print(f"{len(taken)} pictures, {sum(map(len, taken.values())) / 1e6:.2f} MB, in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
