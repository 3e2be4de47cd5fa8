"""A result as a PDF: what the page says, in its words, set with ReportLab in memory."""

import base64
import io
from functools import partial
from html import escape, unescape
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Final

from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase.pdfdoc import PDFString
from reportlab.platypus import Flowable, Image, PageBreak, Paragraph, SimpleDocTemplate, Table, TableStyle

if TYPE_CHECKING:
    from reportlab.pdfgen.canvas import Canvas

_MARGIN: Final = 20 * mm
_PADDING: Final = 6
"""Of ReportLab's frame, in points."""

_WIDTH: Final = A4[0] - 2 * (_MARGIN + _PADDING)
_MAX_IMAGE: Final = 80 * mm
_INK: Final = HexColor("#212b32")
_TRACK: Final = HexColor("#d8dde0")

_TEXT: Final = ParagraphStyle(
    "text", fontName="Helvetica", fontSize=10, leading=14, spaceBefore=3, spaceAfter=5, textColor=_INK
)
_SMALL: Final = ParagraphStyle("small", _TEXT, fontSize=9, leading=12, spaceBefore=0, spaceAfter=0)
_ITEM: Final = ParagraphStyle("item", _TEXT, leftIndent=12, bulletIndent=2)
_HEADINGS: Final = [
    ParagraphStyle(
        f"h{level}", _TEXT, fontName="Helvetica-Bold", fontSize=size, leading=size * 1.25, spaceBefore=8, keepWithNext=1
    )
    for level, size in enumerate((18, 15, 12, 11, 10), 1)
]
_STYLES: Final = {"p": _TEXT, "figcaption": _TEXT, "li": _ITEM, "dt": _SMALL, "dd": _SMALL} | {
    style.name: style for style in _HEADINGS
}
_INLINE: Final = {"strong": ("<b>", "</b>"), "code": ('<font face="Courier">', "</font>")}
_MARGINAL: Final = ("title", "footer")
_VOID: Final = ("img", "input", "br")
_NOT_FOR_PAPER: Final = ("button", "input", "form", "summary", "label", "output")


class _Bar(Flowable):
    """The probability, and where the threshold is; the text beside it says both."""

    def __init__(self, value: float, mark: float) -> None:
        """Both are shares of the width."""
        super().__init__()
        self.width, self.height = _WIDTH, 8 * mm
        self._value, self._mark = value, mark

    def draw(self) -> None:
        """On the canvas that ReportLab has given."""
        self.canv.setFillColor(_TRACK)
        self.canv.rect(0, 2 * mm, _WIDTH, 4 * mm, stroke=0, fill=1)
        self.canv.setFillColor(_INK)
        self.canv.rect(0, 2 * mm, _WIDTH * self._value, 4 * mm, stroke=0, fill=1)
        self.canv.setStrokeColor(_INK)
        self.canv.setLineWidth(1.5)
        self.canv.line(_WIDTH * self._mark, 0.5 * mm, _WIDTH * self._mark, 7.5 * mm)


class _Reader(HTMLParser):
    """Reads the templates' HTML: headings, paragraphs, lists, facts, pictures and the bar; no controls, nothing hidden."""

    def __init__(self) -> None:
        super().__init__()
        self.story: list[Flowable] = []
        self._skipping = 0
        self._bar: dict[str, float] | None = None
        self._text = ""
        self._term = ""
        self._parts = 0
        self.margins: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Of each element."""
        given = dict(attrs)
        classes = (given.get("class") or "").split()
        if self._skipping:
            self._skipping += tag not in _VOID
        elif tag == "svg" and "bar" in classes:
            self._bar = {}
        elif self._bar is not None:
            self._read_bar(tag, classes, given)
        elif "hidden" in given or tag in _NOT_FOR_PAPER or "actions" in classes or tag == "svg":
            self._skipping = int(tag not in _VOID)
        elif tag == "img":
            self._add_image(given.get("src") or "")
        elif tag in _INLINE:
            self._text += _INLINE[tag][0]
        elif tag in _STYLES or tag in _MARGINAL:
            self._text = ""
        elif "one" in classes:
            # Each of several pictures has a sheet of its own, to be filed apart.
            if self._parts:
                self.story.append(PageBreak())
            self._parts += 1

    def handle_endtag(self, tag: str) -> None:
        """Of each element that has one."""
        if self._skipping:
            self._skipping -= 1
        elif tag == "svg" and self._bar is not None:
            self.story.append(_Bar(self._bar["value"], self._bar["mark"]))
            self._bar = None
        elif tag in _INLINE:
            self._text += _INLINE[tag][1]
        elif tag in _MARGINAL:
            self.margins[tag] = unescape(self._text)
        elif tag == "dt":
            self._term = self._text
        elif tag == "dd":
            self._add_fact()
        elif tag in _STYLES and self._text.strip():
            self.story.append(Paragraph(self._text, _STYLES[tag], bulletText="•" if tag == "li" else None))

    def handle_data(self, data: str) -> None:
        """Of the text between."""
        if not self._skipping and self._bar is None:
            self._text += escape(data, quote=False)

    def _read_bar(self, tag: str, classes: list[str], given: dict[str, str | None]) -> None:
        for name, attribute in (("value", "width"), ("mark", "x1")):
            if tag in ("rect", "line") and name in classes and self._bar is not None:
                self._bar[name] = float((given[attribute] or "").rstrip("%")) / 100

    def _add_image(self, source: str) -> None:
        """Only from within the page: nothing is fetched."""
        data = io.BytesIO(base64.b64decode(source.partition(";base64,")[2], validate=True))
        image = Image(data)
        scale = min(1.0, _MAX_IMAGE / max(image.imageWidth, image.imageHeight))
        self.story.append(Image(data, image.imageWidth * scale, image.imageHeight * scale, hAlign="LEFT"))

    def _add_fact(self) -> None:
        row = [Paragraph(self._term, _SMALL), Paragraph(self._text, _SMALL)]
        table = Table([row], colWidths=[0.45 * _WIDTH, 0.55 * _WIDTH], hAlign="LEFT")
        table.setStyle(TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), ("LINEBELOW", (0, 0), (-1, -1), 0.5, _TRACK)]))
        self.story.append(table)


def render(html: str, language: str) -> bytes:
    """Set a result as a PDF.

    The fonts are those that every reader of PDF has; they hold the letters of Indonesian and English. It has no tags: whoever
    listens to a result listens to the page.

    Args:
        html: from our own templates; its `title` is the document's, its `footer` stands on every sheet.
        language: of the text, as in `lang`.
    """
    reader = _Reader()
    reader.feed(html)
    reader.close()
    buffer = io.BytesIO()
    document = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=reader.margins["title"],
        author="Dermserve",
    )
    sheet = partial(_finish_sheet, language=language, foot=reader.margins["footer"])
    document.build(reader.story, onFirstPage=sheet, onLaterPages=sheet)
    return buffer.getvalue()


def _finish_sheet(canvas: "Canvas", document: SimpleDocTemplate, language: str, foot: str) -> None:
    canvas.setCatalogEntry("Lang", PDFString(language))
    canvas.setFont("Helvetica", 8)
    canvas.setFillColor(_INK)
    canvas.drawString(_MARGIN + _PADDING, 10 * mm, foot)
    canvas.drawRightString(A4[0] - _MARGIN - _PADDING, 10 * mm, str(document.page))
