"""What a file tells beside its picture: taken out without touching the picture, but for how it is to be turned."""

import io
import re
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from loadtests.painting import ORIENTATION, oriented

_END, _SCAN, _APPLICATION, _EXIF_SEGMENT = 0xD9, 0xDA, 0xE0, 0xE1
"""Markers of JPEG's segments. From the application's on none is needed to decode, but for what `_SEGMENTS` names."""

_EXIF = b"Exif\0\0"
_JFIF = b"JFIF\0"
_SEGMENTS = {0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}
"""Of JPEG's application segments those that say what colours are meant."""

_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_PNG_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"sBIT", b"pHYs"}
_WEBP_CHUNKS = {b"VP8X", b"ICCP", b"ALPH", b"VP8 ", b"VP8L"}
_WEBP_EXIF, _WEBP_XMP = 0x08, 0x04


def strip(data: bytes) -> bytes | None:
    """The same picture, bit for bit, in a file of JPEG, PNG, WebP or BMP; None of another, or of one that is not whole.

    Raises:
        OSError: it is no picture.
    """
    with Image.open(io.BytesIO(data)) as opened:
        kind = opened.format
        try:
            turned = opened.getexif().get(ORIENTATION, 1)
            exif = oriented(turned).removeprefix(_EXIF) if turned in range(2, 9) else b""
            if kind in ("JPEG", "MPO"):
                return b"".join(_jpeg(data, exif))
            if kind == "PNG":
                return b"".join(_png(data, exif))
            if kind == "WEBP":
                return _webp(data, exif)
            return data[: struct.unpack_from("<I", data, 2)[0] or None] if kind == "BMP" else None
        except (ValueError, struct.error, SyntaxError):
            return None


def _jpeg(data: bytes, exif: bytes) -> Iterator[bytes]:
    """Up to its end: telephones put more pictures behind."""
    yield b"\xff\xd8"
    waiting = _segment(_EXIF_SEGMENT, _EXIF + exif) if exif else b""
    at = 2
    while found := _NEXT_MARKER.search(data, at):
        marker = data[found.start() + 1]
        if marker == _END:
            yield b"\xff\xd9"
            return
        (length,) = struct.unpack_from(">H", data, found.end())
        payload = data[found.end() + 2 : found.end() + length]
        at = found.end() + length
        if marker == _APPLICATION and payload.startswith(_JFIF):
            # What may follow is a small picture, perhaps of what was cut away later.
            yield _segment(marker, payload[:12] + b"\0\0")
            continue
        yield waiting
        waiting = b""
        if marker == _SCAN:
            scan = _NEXT_MARKER.search(data, at)
            if scan is None:
                break
            yield _segment(marker, payload) + data[at : scan.start()]
            at = scan.start()
        elif marker < _APPLICATION or payload.startswith(_SEGMENTS.get(marker, payload + b"-")):
            yield _segment(marker, payload)
    raise ValueError("it has no end")


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _png(data: bytes, exif: bytes) -> Iterator[bytes]:
    yield data[:8]
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind in _PNG_CHUNKS:
            yield data[at : at + 12 + length]
        at += 12 + length
        if kind == b"IHDR" and exif:
            yield struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))


def _webp(data: bytes, exif: bytes) -> bytes:
    chunks, at = [], 12
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    while at < end:
        kind, length = struct.unpack_from("<4sI", data, at)
        content = data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
        if kind in (b"ANIM", b"ANMF"):
            raise ValueError("it moves")
        if kind == b"VP8X":
            flags = content[0] & ~(_WEBP_EXIF | _WEBP_XMP) | (_WEBP_EXIF if exif else 0)
            content = bytes([flags]) + content[1:]
        if kind in _WEBP_CHUNKS:
            chunks.append(_chunk(kind, content))
    body = b"WEBP" + b"".join(chunks) + (_chunk(b"EXIF", exif) if exif else b"")
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
