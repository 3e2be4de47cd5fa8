"""Files that must be refused, each with the problem that it must get where the gateway's limits are the default ones."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, PngImagePlugin

from loadtests.painting import COMPUTED_TOMOGRAPHY, dicom, encode, flat, paint
from loadtests.recipe import Recipe

_SIZE = (300, 200)
_TOO_MANY_BYTES = 20_000_001
_TOO_MANY_SCANS = 100
_HEIC = {"quality": 60, "enc_params": {"preset": "ultrafast"}}

BROKEN = (422, "broken-picture")
NO_PICTURE = (415, "not-a-picture")
POLYGLOT = (415, "polyglot")
TOO_MANY_PIXELS = (413, "picture-too-large")


def recipes() -> list[Recipe]:
    """All of them, in a fixed order."""
    whole = {
        "jpg": lambda: _jpeg("truncated.jpg"),
        "png": lambda: encode(paint("truncated.png", _SIZE), "PNG"),
        "webp": lambda: encode(paint("truncated.webp", _SIZE), "WEBP"),
        "tif": lambda: encode(paint("truncated.tif", _SIZE), "TIFF"),
        "heic": lambda: encode(paint("truncated.heic", _SIZE), "HEIF", **_HEIC),
        "avif": lambda: encode(paint("truncated.avif", _SIZE), "AVIF", max_threads=1),
        "dcm": lambda: dicom(paint("truncated.dcm", _SIZE)),
    }
    return [
        _recipe("empty.jpg", lambda: b"", (400, "no-picture")),
        _recipe("text.jpg", lambda: b"This is a letter, and no picture.\n" * 50, NO_PICTURE),
        _recipe("garbage.png", lambda: np.random.default_rng(1).bytes(100_000), NO_PICTURE),
        _recipe("drawing.svg", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', NO_PICTURE),
        _recipe("document.pdf", lambda: b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n%%EOF", NO_PICTURE),
        _recipe("picture.gif", lambda: encode(paint("picture.gif", _SIZE).convert("P"), "GIF"), NO_PICTURE),
        _recipe("floating-point.tif", lambda: encode(flat(_SIZE).convert("F"), "TIFF"), NO_PICTURE),
        _recipe("tomography.dcm", lambda: dicom(paint("tomography.dcm", _SIZE), sop_class=COMPUTED_TOMOGRAPHY), NO_PICTURE),
        *(_recipe(f"truncated.{suffix}", _half(make), BROKEN) for suffix, make in whole.items()),
        _recipe("archive-behind.jpg", lambda: _jpeg("archive-behind.jpg") + _archive(), POLYGLOT),
        _recipe("script-inside.jpg", lambda: _jpeg("script-inside.jpg", comment=b"<script>alert(1)</script>"), POLYGLOT),
        _recipe("page-before.dcm", lambda: _page_before(dicom(paint("page-before.dcm", _SIZE))), POLYGLOT),
        _recipe("text-bomb.png", _text_bomb, BROKEN),
        _recipe("scan-bomb.jpg", _scan_bomb, BROKEN),
        _recipe("claims-10-gigapixels.png", lambda: _claiming((100_000, 100_000)), TOO_MANY_PIXELS),
        _recipe("51-megapixels.jpg", lambda: encode(flat((8200, 6250)), "JPEG"), TOO_MANY_PIXELS),
        _recipe("26-megapixels.png", lambda: encode(flat((5200, 5000)), "PNG", compress_level=1), TOO_MANY_PIXELS),
        _recipe("thumbnail-40x40.jpg", lambda: encode(paint("thumbnail", (40, 40)), "JPEG"), (422, "picture-too-small")),
        _recipe("20-megabytes.jpg", lambda: _jpeg("20-megabytes.jpg").ljust(_TOO_MANY_BYTES, b"\0"), (413, "upload-too-large")),
    ]


def _recipe(name: str, make: Callable[[], bytes], refused_with: tuple[int, str]) -> Recipe:
    return Recipe(name, "hostile", make, status=refused_with[0], problem=refused_with[1])


def _jpeg(name: str, **options: object) -> bytes:
    return encode(paint(name, _SIZE), "JPEG", **options)


def _half(make: Callable[[], bytes]) -> Callable[[], bytes]:
    def halved() -> bytes:
        whole = make()
        return whole[: len(whole) // 2]

    return halved


def _archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as written:
        # Without a time of its own the entry would have the present one.
        written.writestr(zipfile.ZipInfo("META-INF/MANIFEST.MF"), "Main-Class: Evil")
    return buffer.getvalue()


def _page_before(file: bytes) -> bytes:
    return b"<html><body>".ljust(128, b" ") + file[128:]


def _text_bomb() -> bytes:
    """64 MB of text in a few kilobytes."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "0" * 64_000_000, zip=True)
    return encode(paint("text-bomb.png", _SIZE), "PNG", pnginfo=texts)


def _scan_bomb() -> bytes:
    """The last scan of a progressive JPEG, over and over."""
    jpeg = _jpeg("scan-bomb.jpg", progressive=True)
    last = jpeg.rfind(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * _TOO_MANY_SCANS + jpeg[-2:]


def _claiming(size: tuple[int, int]) -> bytes:
    """A PNG that says it is larger than it is."""
    png = bytearray(encode(Image.new("L", _SIZE), "PNG"))
    png[16:24] = struct.pack(">II", *size)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    return bytes(png)
