"""A DICOM file -> the pixels of its first frame, and of everything else in it nothing at all.

Patient data never leave this module: only the elements named here are read, by their raw bytes, so that no text of the file is
ever decoded; and no exception, warning or log line of pydicom, which quote values, is passed on.
"""

import io
import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from PIL import Image

from gateway import bombs
from gateway.errors import BrokenPicture, NotAPicture, Polyglot

# pydicom loads requests where it is installed, to download examples that nobody asks for: 6 MB of each process.
_requests = sys.modules.setdefault("requests", None)  # type: ignore[arg-type]
from pydicom.encaps import generate_frames  # noqa: E402
from pydicom.filereader import read_dataset  # noqa: E402

if _requests is None:
    del sys.modules["requests"]

# Once for the process: the filters inside `warnings.catch_warnings` are not those of one thread.
warnings.filterwarnings("ignore", module=r"pydicom|gateway\.dicom")
logging.getLogger("pydicom").disabled = True

SOP_CLASSES: Final = {
    "1.2.840.10008.5.1.4.1.1.77.1.7": "Dermoscopic Photography Image Storage",
    "1.2.840.10008.5.1.4.1.1.77.1.4": "VL Photographic Image Storage",
}
IMPLICIT_VR: Final = "1.2.840.10008.1.2"
EXPLICIT_VR: Final = "1.2.840.10008.1.2.1"
RLE: Final = "1.2.840.10008.1.2.5"
JPEG_BASELINE: Final = "1.2.840.10008.1.2.4.50"
JPEG_2000_LOSSLESS: Final = "1.2.840.10008.1.2.4.90"
JPEG_2000: Final = "1.2.840.10008.1.2.4.91"

MAX_JPEG_2000_PIXELS: Final = 12_500_000
"""OpenJPEG holds four bytes a sample while it decodes: 150 MB for such a picture."""

MAX_FRAMES: Final = 1000
MAX_READS: Final = 20_000
"""An element takes one or two reads, a file of these classes has some hundreds: pydicom would need minutes for millions."""

# PS3.5, annexes A.1 to A.4. Deflated (1.2.840.10008.1.2.1.99) is not there: pydicom inflates it whole, whatever comes out.
_PHOTOMETRIC: Final = {
    IMPLICIT_VR: ("RGB", "YBR_FULL", "YBR_FULL_422", "MONOCHROME2"),
    EXPLICIT_VR: ("RGB", "YBR_FULL", "YBR_FULL_422", "MONOCHROME2"),
    RLE: ("RGB", "YBR_FULL", "MONOCHROME2"),
    JPEG_BASELINE: ("RGB", "YBR_FULL", "YBR_FULL_422", "MONOCHROME2"),
    JPEG_2000_LOSSLESS: ("RGB", "YBR_RCT", "MONOCHROME2"),
    JPEG_2000: ("RGB", "YBR_RCT", "YBR_ICT", "MONOCHROME2"),
}

_PREAMBLE_BYTES: Final = 128
_PREFIX: Final = b"DICM"
_META_GROUP: Final = 0x0002
_TRANSFER_SYNTAX: Final = 0x00020010
_SOP_CLASS: Final = 0x00080016
_SAMPLES: Final = 0x00280002
_PHOTOMETRIC_INTERPRETATION: Final = 0x00280004
_PLANAR_CONFIGURATION: Final = 0x00280006
_FRAMES: Final = 0x00280008
_ROWS: Final = 0x00280010
_COLUMNS: Final = 0x00280011
_BITS_ALLOCATED: Final = 0x00280100
_BITS_STORED: Final = 0x00280101
_PIXEL_REPRESENTATION: Final = 0x00280103
_ICC_PROFILE: Final = 0x00282000
_PIXEL_DATA: Final = 0x7FE00010
_TAGS: Final = (
    _SOP_CLASS,
    _SAMPLES,
    _PHOTOMETRIC_INTERPRETATION,
    _PLANAR_CONFIGURATION,
    _FRAMES,
    _ROWS,
    _COLUMNS,
    _BITS_ALLOCATED,
    _BITS_STORED,
    _PIXEL_REPRESENTATION,
    _ICC_PROFILE,
    _PIXEL_DATA,
)
_RLE_HEADER_BYTES: Final = 64
_ORIENTATION: Final = 0x0112
_DAMAGED: Final = "the DICOM file is damaged or not complete"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Header:
    """All that is taken out of a file; there is nothing of a person in it.

    Attributes:
        columns, rows: pixels of every frame.
        samples: 1 for grey, 3 for colour.
        photometric: DICOM's name of the colour space.
        is_planar: the samples of native pixels come one plane after the other.
        frames: how many the file says it has.
        transfer_syntax: its UID.
        icc_profile: empty when there is none.
        pixel_data: of all frames, not decoded.
    """

    columns: int
    rows: int
    samples: int
    photometric: str
    is_planar: bool
    frames: int
    transfer_syntax: str
    icc_profile: bytes
    pixel_data: bytes

    @property
    def is_reduced(self) -> bool:
        """Decoded at a reduced scale: a large frame costs little."""
        return self.transfer_syntax == JPEG_BASELINE and self.photometric != "RGB"

    @property
    def is_jpeg_2000(self) -> bool:
        """For which `MAX_JPEG_2000_PIXELS` holds."""
        return self.transfer_syntax in (JPEG_2000_LOSSLESS, JPEG_2000)


class _BoundedFile(io.BytesIO):
    """Bytes in memory that can be read only so many times."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            # Not EOFError: pydicom would go on with what it has.
            raise ValueError("too many elements")
        return super().read(size)


def is_dicom(data: bytes) -> bool:
    """Whether it is a file of DICOM part 10, whatever its name says."""
    return data.startswith(_PREFIX, _PREAMBLE_BYTES)


def read_header(data: bytes) -> Header:
    """Read what describes the pixels, and check that we can read them; nothing is decoded.

    Raises:
        Polyglot: the preamble holds the beginning of another kind of file.
        NotAPicture: no dermoscopic or clinical photograph, or pixels in a form that we do not read.
        BrokenPicture: damaged or not complete.
    """
    if any(data[:_PREAMBLE_BYTES]):
        raise Polyglot("the preamble of the DICOM file is not empty")
    syntax, values = _guarded(lambda: _read_elements(data))
    if syntax not in _PHOTOMETRIC:
        raise NotAPicture("the DICOM file has a transfer syntax that we do not read")
    if _SOP_CLASS not in values:
        raise BrokenPicture(_DAMAGED)
    if _text(values, _SOP_CLASS) not in SOP_CLASSES:
        raise NotAPicture("the DICOM file is neither a dermoscopic nor a clinical photograph")
    header = Header(
        columns=_number(values, _COLUMNS),
        rows=_number(values, _ROWS),
        samples=_number(values, _SAMPLES),
        photometric=_text(values, _PHOTOMETRIC_INTERPRETATION),
        is_planar=_number(values, _PLANAR_CONFIGURATION, 0) == 1,
        frames=_guarded(lambda: int(_text(values, _FRAMES) or "1")),
        transfer_syntax=syntax,
        icc_profile=values.get(_ICC_PROFILE, b""),
        pixel_data=values.get(_PIXEL_DATA, b""),
    )
    is_grey = header.photometric == "MONOCHROME2"
    if header.photometric not in _PHOTOMETRIC[syntax]:
        raise NotAPicture("the DICOM file has a colour space that we do not read")
    bits = (_number(values, _BITS_ALLOCATED), _number(values, _BITS_STORED), _number(values, _PIXEL_REPRESENTATION, 0))
    if bits != (8, 8, 0):
        raise NotAPicture("the DICOM file has other samples than unsigned ones of 8 bits")
    if header.samples != (1 if is_grey else 3) or not 1 <= header.frames <= MAX_FRAMES or not header.pixel_data:
        raise BrokenPicture(_DAMAGED)
    if syntax in (IMPLICIT_VR, EXPLICIT_VR) and len(header.pixel_data) < _frame_bytes(header) * header.frames:
        raise BrokenPicture(_DAMAGED)
    return header


def open_first_frame(header: Header) -> Image.Image:
    """The first frame; a JPEG's pixels are not decoded yet. Orientation is DICOM's, in which pixels are stored upright.

    Raises:
        BrokenPicture: damaged or not complete, or of another size than the header says.
    """
    opened = _guarded(lambda: _open_frame(header))
    if header.icc_profile:
        opened.info["icc_profile"] = header.icc_profile
    return opened


def _guarded(parse: Callable[[], Result]) -> Result:
    """The result; or, whatever goes wrong, an exception of ours that no text of the file hangs on, not even as a cause."""
    try:
        return parse()
    except Exception:  # noqa: BLE001, S110  (any exception of the parser's may quote the patient's data)
        pass
    raise BrokenPicture(_DAMAGED)


def _read_elements(data: bytes) -> tuple[str, dict[int, bytes]]:
    """Transfer syntax, and the raw values of `_TAGS` that are there."""
    file = _BoundedFile(data)
    file.seek(_PREAMBLE_BYTES + len(_PREFIX))
    meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag >> 16 != _META_GROUP, specific_tags=[_TRANSFER_SYNTAX])
    syntax = _text({_TRANSFER_SYNTAX: meta.get_item(_TRANSFER_SYNTAX).value}, _TRANSFER_SYNTAX)
    if syntax not in _PHOTOMETRIC:
        return syntax, {}
    dataset = read_dataset(
        file, syntax == IMPLICIT_VR, True, stop_when=lambda tag, *_: tag > _PIXEL_DATA, specific_tags=list(_TAGS)
    )
    return syntax, {tag: bytes(dataset.get_item(tag).value or b"") for tag in _TAGS if tag in dataset}


def _text(values: dict[int, bytes], tag: int) -> str:
    """A UID, a code or a number in digits; what else stands there is not told apart from nothing."""
    text = values.get(tag, b"").rstrip(b"\0 ").lstrip(b" ")
    return text.decode("ascii") if text.isascii() else ""


def _number(values: dict[int, bytes], tag: int, default: int | None = None) -> int:
    value = values.get(tag, b"")
    if len(value) == 2:  # noqa: PLR2004  (US: an unsigned short)
        return int.from_bytes(value, "little")
    if default is None or value:
        raise BrokenPicture(_DAMAGED)
    return default


def _frame_bytes(header: Header) -> int:
    samples = 2 if header.photometric == "YBR_FULL_422" else header.samples
    return header.columns * header.rows * samples


def _open_frame(header: Header) -> Image.Image:
    if header.transfer_syntax in (IMPLICIT_VR, EXPLICIT_VR):
        return _from_native(header)
    frame = next(generate_frames(_BoundedFile(header.pixel_data), number_of_frames=header.frames))
    if header.transfer_syntax == RLE:
        return _from_rle(frame, header)
    return _from_jpeg(frame, header) if header.transfer_syntax == JPEG_BASELINE else _from_jpeg_2000(frame, header)


def _mode(header: Header) -> str:
    return {"RGB": "RGB", "MONOCHROME2": "L"}.get(header.photometric, "YCbCr")


def _from_native(header: Header) -> Image.Image:
    size, mode = (header.columns, header.rows), _mode(header)
    pixels = header.pixel_data[: _frame_bytes(header)]
    if header.photometric == "YBR_FULL_422":
        # PS3.3, C.7.6.3.1.2: two luminances, then the two colour differences that both pixels share.
        pairs = np.frombuffer(pixels, np.uint8).reshape(-1, 4)
        pixels = pairs[:, (0, 2, 3, 1, 2, 3)].tobytes()
    elif header.is_planar and header.samples > 1:
        pixels = np.frombuffer(pixels, np.uint8).reshape(header.samples, -1).T.tobytes()
    return _to_rgb(Image.frombytes(mode, size, pixels))


def _from_rle(frame: bytes, header: Header) -> Image.Image:
    """PackBits, a plane a sample (PS3.5, annex G). Pillow's decoder writes no more than the plane, whatever the bytes claim."""
    numbers = np.frombuffer(frame[:_RLE_HEADER_BYTES], "<u4")
    segments, offsets = int(numbers[0]), [*numbers[1:].tolist()]
    if segments != header.samples:
        raise ValueError("segments")
    ends = [*offsets[1:segments], len(frame)]
    size = (header.columns, header.rows)
    planes = [
        Image.frombytes("L", size, frame[start:end], "packbits", "L")
        for start, end in zip(offsets[:segments], ends, strict=True)
    ]
    return _to_rgb(Image.merge(_mode(header), planes) if segments > 1 else planes[0])


def _from_jpeg(frame: bytes, header: Header) -> Image.Image:
    bombs.check_scans(frame)
    opened = _open_embedded(frame, "JPEG", header)
    # Stored upright; a camera's note of how it was held would turn it once more.
    opened.info.pop("xmp", None)
    opened.getexif()[_ORIENTATION] = 1
    is_marked = "jfif" in opened.info or "adobe" in opened.info
    if header.photometric == "RGB" and not is_marked:
        # Without a mark a decoder takes the samples for YCbCr; asked for just that it leaves them as they are.
        opened.draft("YCbCr", opened.size)
        return Image.frombytes("RGB", opened.size, opened.tobytes())
    return opened


def _from_jpeg_2000(frame: bytes, header: Header) -> Image.Image:
    """The decoder itself takes YBR_RCT and YBR_ICT back to RGB."""
    opened = _open_embedded(frame, "JPEG2000", header)
    opened.load()
    return opened


def _open_embedded(frame: bytes, format_name: str, header: Header) -> Image.Image:
    """Only where it is as large as the header says, for that is what was checked."""
    opened = Image.open(io.BytesIO(frame), formats=(format_name,))
    if opened.size != (header.columns, header.rows) or opened.mode != ("L" if header.samples == 1 else "RGB"):
        raise ValueError("size or samples")
    return opened


def _to_rgb(picture: Image.Image) -> Image.Image:
    return picture.convert("RGB") if picture.mode == "YCbCr" else picture
