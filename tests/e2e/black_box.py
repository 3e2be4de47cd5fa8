"""The black-box test of the upload and of its result, as a table: what is done, and what must be seen. Painted pictures only.

`make black-box` performs the rows and writes docs/black-box.md; tests/e2e/test_black_box.py performs them as tests.
"""

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.e2e.visitor import Visitor
from tests.pictures import COLOURS, archive, dicom_file, dicom_jpeg, encode, paint

SCRIPTS, KEYBOARD, NO_SCRIPTS = "scripts", "keyboard", "no scripts"
"""The browser: as usual; as usual, but the hand never leaves the keyboard; one that runs no script."""

SMALL_BYTES = 1_000_000

MALIGNANT = "Shows signs of a malignant lesion"
BENIGN = "Looks more like a benign lesion"
UNCERTAIN = "Uncertain: have a dermatologist look"
OUTSIDE = "Outside what this tool can assess"
NOT_A_PICTURE = (
    "This file is not a picture that can be read",
    "Choose a JPEG, PNG, WebP, TIFF, BMP, HEIC, AVIF or DICOM picture",
)
DAMAGED = ("The picture is damaged or not complete", "Copy or take the picture again")
TWO_THINGS = ("The file is not only a picture", "save it as a new JPEG and choose that one")


@dataclass(frozen=True)
class Upload:
    """A file as a visitor has it."""

    name: str
    mime_type: str
    make: Callable[[], bytes]

    def put(self, folder: Path) -> Path | dict[str, object]:
        """What the browser is told to choose."""
        data = self.make()
        if len(data) <= SMALL_BYTES:
            return {"name": self.name, "mimeType": self.mime_type, "buffer": data}
        # As a file: through Playwright's pipe it takes seconds.
        path = folder / self.name
        path.write_bytes(data)
        return path


@dataclass(frozen=True)
class Row:
    """One test.

    Attributes:
        number: of the row, and what it is called for good.
        done: what the visitor does.
        upload: the file, or None where none is chosen.
        says: the heading of what must appear, and then parts of its text.
        is_result: whether that is a result; otherwise it is a problem that says what to do.
        way: the browser.
        consents: whether the box is ticked.
    """

    number: str
    done: str
    upload: Upload | None
    says: tuple[str, ...]
    is_result: bool = False
    way: str = SCRIPTS
    consents: bool = True

    @property
    def expected(self) -> str:
        place = "page" if self.way == NO_SCRIPTS else "pop-up" if self.is_result else "message in the form"
        return f"{'result' if self.is_result else 'refusal'} ({place}): " + "; ".join(f"“{text}”" for text in self.says)


def picture(outcome: str = "malignant", format: str = "PNG", **save: object) -> Callable[[], bytes]:
    return lambda: paint(outcome, format=format, **save)


def flat(size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", size, COLOURS["malignant"])


def png(make: Callable[[], bytes], name: str = "picture.png") -> Upload:
    return Upload(name, "image/png", make)


def animation() -> bytes:
    return encode(flat((300, 200)), "GIF")


def sixteen_bits() -> bytes:
    grey = np.full((200, 300), 0.8 * 65_535, dtype=np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()


ACCEPTED = {
    "a JPEG": Upload("picture.jpg", "image/jpeg", picture(format="JPEG", quality=95)),
    "a JPEG in CMYK": Upload("picture.jpg", "image/jpeg", picture(format="JPEG", mode="CMYK", quality=95)),
    "a PNG": png(picture()),
    "a PNG with transparency": png(picture(mode="RGBA")),
    "a WebP": Upload("picture.webp", "image/webp", picture(format="WEBP", quality=95)),
    "a TIFF": Upload("picture.tif", "image/tiff", picture(format="TIFF", compression="tiff_lzw")),
    "a BMP": Upload("picture.bmp", "image/bmp", picture(format="BMP")),
    "a HEIC": Upload("picture.heic", "image/heic", picture(format="HEIF")),
    "an AVIF": Upload("picture.avif", "image/avif", picture(format="AVIF")),
    "a DICOM file (dermoscopy, uncompressed)": Upload("picture.dcm", "application/dicom", lambda: dicom_file(flat((300, 200)))),
    "a DICOM file (dermoscopy, JPEG inside)": Upload("picture.dcm", "application/dicom", lambda: dicom_jpeg(flat((300, 200)))),
    "a JPEG whose name says PNG": png(picture(format="JPEG", quality=95)),
}
REFUSED = {
    "a text": (Upload("notes.txt", "text/plain", lambda: b"not a picture"), NOT_A_PICTURE),
    "a text whose name says PNG": (png(lambda: b"not a picture"), NOT_A_PICTURE),
    "a PDF": (Upload("letter.pdf", "application/pdf", lambda: b"%PDF-1.7\n%%EOF\n"), NOT_A_PICTURE),
    "a GIF": (Upload("picture.gif", "image/gif", animation), NOT_A_PICTURE),
    "an SVG": (
        Upload("picture.svg", "image/svg+xml", lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="300" height="200"/>'),
        NOT_A_PICTURE,
    ),
    "a video": (Upload("clip.mp4", "video/mp4", lambda: b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(500)), NOT_A_PICTURE),
    "an archive": (Upload("pictures.zip", "application/zip", archive), NOT_A_PICTURE),
    "a DICOM file of another kind (CT)": (
        Upload(
            "scan.dcm",
            "application/dicom",
            lambda: dicom_file(flat((300, 200)), SOPClassUID="1.2.840.10008.5.1.4.1.1.2"),
        ),
        NOT_A_PICTURE,
    ),
    "a PNG cut off": (png(lambda: paint()[:60]), DAMAGED),
    "a JPEG cut off": (
        Upload("picture.jpg", "image/jpeg", lambda: (data := paint(format="JPEG"))[: len(data) // 2]),
        DAMAGED,
    ),
    "a picture that is an archive too": (
        Upload("picture.jpg", "image/jpeg", lambda: paint(format="JPEG") + archive()),
        TWO_THINGS,
    ),
    "a picture of 63 by 63 pixels": (
        png(lambda: paint(size=(63, 63))),
        ("The picture is too small", "Both sides need at least 64 pixels"),
    ),
}
TOO_LARGE = {
    "a file of more than 20 MB": (
        png(lambda: bytes(20_000_001)),
        ("The file is too large", "A picture may have up to 20\u00a0MB"),
    ),
    "a PNG of more than 25 megapixels": (
        png(lambda: paint(size=(5100, 5000), compress_level=1)),
        ("The picture has too many pixels", "any other up to 25"),
    ),
}
OUTCOMES = {
    "malignant": (MALIGNANT, "This is not a diagnosis.", "Have a dermatologist examine the lesion as soon as possible"),
    "benign": (BENIGN, "This does not rule out cancer.", "Keep an eye on the lesion"),
    "uncertain": (UNCERTAIN, "That is neither a good nor a bad sign.", "Have a dermatologist look at the lesion"),
    "guarded": (UNCERTAIN, "must not be set aside", "Have a dermatologist look at the lesion"),
    "out_of_scope": (OUTSIDE, "This does not mean that there is no cancer.", "If the lesion worries you, see a doctor"),
}
"""What each says: what it is, what it is not, what to do next."""

FIGURES = {"malignant": "78.4%", "benign": "19.6%", "uncertain": "40.0%", "guarded": "90.2%"}
"""Mean red of what is painted, of 255: the tiny model's probability."""

CLASSES = {"malignant": "malignant", "benign": "benign"}
PAINTED = {
    "malignant": "a picture that the model calls malignant",
    "benign": "a picture that the model calls benign",
    "uncertain": "a picture near the threshold",
    "guarded": "a picture that is no lesion by its looks, but malignant by its figure",
    "out_of_scope": "a picture that is no lesion by its looks",
}


def result_rows(letter: str, way: str) -> list[Row]:
    """Every outcome, and the figure and the class that must be in it."""
    rows = []
    for place, (outcome, says) in enumerate(OUTCOMES.items(), 1):
        figure = (f"Probability of malignant: {FIGURES[outcome]}",) if outcome in FIGURES else ()
        named = CLASSES.get(outcome, "no class given (none)")
        rows.append(
            Row(f"{letter}{place}", f"check {PAINTED[outcome]}", png(picture(outcome)), (*says, *figure, named), True, way)
        )
    return rows


SECTIONS: dict[str, list[Row]] = {
    "A. Kinds of picture that are accepted": [
        Row(f"A{place}", f"choose {what}, agree, check", upload, (MALIGNANT,), True)
        for place, (what, upload) in enumerate(ACCEPTED.items(), 1)
    ],
    "B. What is refused, and what is said": [
        Row("B1", "check without a picture", None, ("No picture was chosen", "Choose a picture of the lesion first")),
        Row("B2", "check without agreeing", png(picture()), ("Your consent is missing", "Tick the box"), consents=False),
        *(
            Row(f"B{place}", f"choose {what}, agree, check", upload, says)
            for place, (what, (upload, says)) in enumerate(REFUSED.items(), 3)
        ),
    ],
    "C. The result pop-up": result_rows("C", SCRIPTS),
    "D. With the keyboard alone": [
        Row(
            "D1", "choose a picture, agree, check, read, close", png(picture()), (MALIGNANT, "What to do next"), True, KEYBOARD
        ),
        Row("D2", "check without a picture", None, ("No picture was chosen",), way=KEYBOARD),
        Row("D3", "choose a text, agree, check", REFUSED["a text"][0], NOT_A_PICTURE, way=KEYBOARD),
    ],
    "E. Without JavaScript": [
        *result_rows("E", NO_SCRIPTS),
        *(
            Row(f"E{place}", f"choose {what}, agree, check", upload, says, way=NO_SCRIPTS)
            for place, (what, (upload, says)) in enumerate(
                (
                    {what: REFUSED[what] for what in ("a text", "a PNG cut off", "a picture of 63 by 63 pixels")} | TOO_LARGE
                ).items(),
                len(OUTCOMES) + 1,
            )
        ),
    ],
}
ROWS = [row for rows in SECTIONS.values() for row in rows]


def perform(row: Row, page: Page) -> str:
    """Do what the row says, in English, on a page loaded anew. Gives the heading that was seen; fails on another one."""
    with tempfile.TemporaryDirectory(prefix="dermserve-black-box-") as folder:
        return _perform(row, page, Path(folder))


def _perform(row: Row, page: Page, folder: Path) -> str:
    visitor = Visitor(page, "en")
    page.goto("/check")
    file = row.upload.put(folder) if row.upload else None
    (_press_keys if row.way == KEYBOARD else _click)(row, visitor, file)
    place = _place(row, visitor)
    heading = place.get_by_role("heading").first
    expect(heading).to_have_text(row.says[0])
    for text in row.says[1:]:
        expect(place).to_contain_text(text)
    seen = heading.inner_text().strip()
    if row.way == KEYBOARD:
        _leave_by_keys(row, visitor, heading, place)
    return seen


def _place(row: Row, visitor: Visitor) -> Locator:
    if row.way == NO_SCRIPTS:
        return visitor.page.get_by_role("main")
    return visitor.result if row.is_result else visitor.page.get_by_role("alert")


def _click(row: Row, visitor: Visitor, file: Path | dict[str, object] | None) -> None:
    if file:
        visitor.file.set_input_files(file)
    if row.consents:
        visitor.consent.check()
    visitor.button("check").click()


def _press_keys(row: Row, visitor: Visitor, file: Path | dict[str, object] | None) -> None:
    page = visitor.page
    # From the start: asked for only at the key press, the interception may come too late.
    page.on("filechooser", lambda chooser: None)
    if file:
        _tab_to(page, visitor.file)
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(file)
        _tab_to(page, visitor.consent)
        page.keyboard.press("Space")
    _tab_to(page, visitor.button("check"))
    page.keyboard.press("Enter")


def _tab_to(page: Page, target: Locator, most: int = 30) -> None:
    """As often as it takes: what else can be reached before it is nobody's business here."""
    for _ in range(most):
        if target.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{target} is not reached with the keyboard")


def _leave_by_keys(row: Row, visitor: Visitor, heading: Locator, place: Locator) -> None:
    """What appeared has the focus, and a result closes."""
    expect(heading if row.is_result else place).to_be_focused()
    if row.is_result:
        visitor.page.keyboard.press("Escape")
        expect(visitor.result).to_be_hidden()


def options(way: str) -> dict[str, object]:
    """Of the browser's context."""
    return {"java_script_enabled": way != NO_SCRIPTS}
