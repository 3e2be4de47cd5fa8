"""Small files that would cost a decoder far more than they hold: found before it gets them, where it has no limit of its own.

The other ones are stopped by the limit of pixels, by Pillow (inflated metadata of PNG, overlapping values of TIFF and EXIF) and
by libheif (frames larger than the container says).
"""

import re
import struct
from collections.abc import Iterator
from typing import Final

from gateway.errors import BrokenPicture

MAX_SCANS: Final = 64
"""Of a progressive JPEG; encoders make about ten. Each costs a walk over all blocks, however few bytes it has."""

MAX_PARTS: Final = 10_000
"""Boxes of a container and OBUs of a frame: a few dozen are usual."""

_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_START_OF_SCAN: Final = 0xDA
_END_OF_IMAGE: Final = 0xD9
_WITHOUT_LENGTH: Final = (0x01, 0xD8)

_SEQUENCE_HEADER: Final = 1
_DAMAGED: Final = "the picture is damaged"


def check_scans(jpeg: bytes) -> None:
    """Count the scans of a JPEG, from marker to marker up to its end (ITU-T T.81, annex B).

    Raises:
        BrokenPicture: there are more than `MAX_SCANS`.
    """
    # The usual case, at a tenth of the cost: pixels never hold a marker, only metadata and what follows the end do.
    if jpeg.count(b"\xff\xda") <= MAX_SCANS:
        return
    scans, position = 0, 0
    while found := _MARKER.search(jpeg, position):
        marker, position = jpeg[found.start() + 1], found.end()
        if marker == _END_OF_IMAGE:
            return
        if marker in _WITHOUT_LENGTH:
            continue
        scans += marker == _START_OF_SCAN
        if scans > MAX_SCANS:
            raise BrokenPicture("the JPEG has too many scans")
        position += int.from_bytes(jpeg[position : position + 2], "big")


def check_avif_frames(data: bytes, max_pixels: int) -> None:
    """Compare what the frames themselves say with the limit: the decoder goes by them, and scales to what the container says.

    Looked at are all items of the container, and the first sample of each track.

    Raises:
        BrokenPicture: a frame is larger than that, or its header cannot be read.
    """
    try:
        for frame in _av1_frames(data):
            width, height, most = _frame_size(frame)
            # A frame may say otherwise than its sequence as far as the sequence's bits go: twice of each edge at most.
            if width * height > max_pixels or most > 4 * max_pixels:
                raise BrokenPicture("a frame of the picture is larger than its container says")
    except (IndexError, ValueError, KeyError, struct.error) as error:
        raise BrokenPicture(_DAMAGED) from error


def _av1_frames(data: bytes) -> Iterator[bytes]:
    for name, start, end in _boxes(data, 0, len(data)):
        if name == b"meta":
            yield from _items(data, start + 4, end)
        elif name == b"moov":
            yield from _samples(data, start, end)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, and begin and end of the content, of each box (ISO/IEC 14496-12, 4.2)."""
    for _ in range(MAX_PARTS):
        if start + 8 > end:
            return
        size, name = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = end if size == 0 else start + size
        if not content <= stop <= end:
            raise ValueError("box")
        yield name, content, stop
        start = stop
    raise ValueError("boxes")


def _items(data: bytes, start: int, end: int) -> Iterator[bytes]:
    boxes = {name: (begin, stop) for name, begin, stop in _boxes(data, start, end)}
    if b"iinf" not in boxes or b"iloc" not in boxes:
        return
    begin, stop = boxes[b"iinf"]
    coded = set()
    for name, entry, _ in _boxes(data, begin + (6 if data[begin] == 0 else 8), stop):
        long = data[entry] > 2  # noqa: PLR2004  (infe, version 3)
        kind = entry + (10 if long else 8)
        if name == b"infe" and data[kind : kind + 4] == b"av01":
            coded.add(int.from_bytes(data[entry + 4 : entry + (8 if long else 6)], "big"))
    data_box = boxes.get(b"idat", (0, 0))[0]
    for item, method, extents in _locations(data, *boxes[b"iloc"]):
        if item in coded:
            origin = {0: 0, 1: data_box}[method]
            yield b"".join(data[origin + at : origin + at + size] if size else data[origin + at :] for at, size in extents)


def _locations(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Item, construction method, and offset and length of each extent (ISO/IEC 14496-12, 8.11.3)."""
    version = data[position]
    sizes = data[position + 4], data[position + 5]
    offset_bytes, length_bytes, base_bytes, index_bytes = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4, sizes[1] & 15
    position += 6

    def number(size: int) -> int:
        nonlocal position
        if position + size > end:
            raise ValueError("iloc")
        position += size
        return int.from_bytes(data[position - size : position], "big")

    wide = 4 if version > 1 else 2
    for _ in range(number(wide)):
        item = number(wide)
        method = number(2) & 15 if version else 0
        number(2)
        base = number(base_bytes)
        extents = []
        for _ in range(number(2)):
            if version:
                number(index_bytes)
            at = base + number(offset_bytes)
            extents.append((at, number(length_bytes)))
        yield item, method, extents


def _samples(data: bytes, start: int, end: int) -> Iterator[bytes]:
    """The first sample of each track of AV1."""
    for track, begin, stop in _boxes(data, start, end):
        if track != b"trak":
            continue
        for name in (b"mdia", b"minf", b"stbl"):
            begin, stop = {box: (first, last) for box, first, last in _boxes(data, begin, stop)}[name]  # noqa: PLW2901
        table = {box: first for box, first, _ in _boxes(data, begin, stop)}
        if data[table[b"stsd"] + 12 : table[b"stsd"] + 16] != b"av01":
            continue
        (size,) = struct.unpack_from(">I", data, table[b"stsz"] + 4)
        if size == 0:
            (size,) = struct.unpack_from(">I", data, table[b"stsz"] + 12)
        if b"stco" in table:
            (at,) = struct.unpack_from(">I", data, table[b"stco"] + 8)
        else:
            (at,) = struct.unpack_from(">Q", data, table[b"co64"] + 8)
        yield data[at : at + size]


def _frame_size(frame: bytes) -> tuple[int, int, int]:
    """The largest width and height of the frame's sequence headers, and the most pixels that their bits can say."""
    sizes = [_sequence_size(content) for kind, content in _obus(frame) if kind == _SEQUENCE_HEADER]
    if not sizes:
        raise ValueError("no sequence header")
    widths, heights, most = zip(*sizes, strict=True)
    return max(widths), max(heights), max(most)


def _obus(frame: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of each unit (AV1 bitstream specification, 5.3)."""
    position = 0
    for _ in range(MAX_PARTS):
        if position >= len(frame):
            return
        header = frame[position]
        position += 2 if header & 4 else 1
        size, shift = len(frame) - position, 0
        if header & 2:
            size = 0
            while True:
                part = frame[position]
                position += 1
                size |= (part & 127) << shift
                shift += 7
                if part < 128 or shift > 56:  # noqa: PLR2004  (leb128)
                    break
        yield header >> 3 & 15, frame[position : position + size]
        position += size
    raise ValueError("units")


class _Bits:
    """Bits of a header, from the first to the last."""

    def __init__(self, content: bytes) -> None:
        self._value = int.from_bytes(content[:256], "big")
        self._left = 8 * len(content[:256])

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("bits")
        return self._value >> self._left & ((1 << count) - 1)

    def skip_exponential(self) -> None:
        zeros = 0
        while not self.take(1):
            zeros += 1
        self.take(zeros)


def _sequence_size(content: bytes) -> tuple[int, int, int]:
    """Width, height, and the most pixels that the bits of both can say (AV1 bitstream specification, 5.5)."""
    bits = _Bits(content)
    bits.take(4)  # profile, still picture
    if bits.take(1):  # reduced header
        bits.take(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(width_bits) + 1, bits.take(height_bits) + 1, 1 << (width_bits + height_bits)


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.take(1):  # timing
        bits.take(64)
        if bits.take(1):
            bits.skip_exponential()
        if bits.take(1):  # decoder model
            delay_bits = bits.take(5) + 1
            bits.take(42)
    has_display_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:  # noqa: PLR2004  (levels with a tier)
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if has_display_delay and bits.take(1):
            bits.take(4)
