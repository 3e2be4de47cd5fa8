"""Paints: skin with a lesion and grain, as large as wanted, the same each time for a name; and writes it in a format."""

import io
import zlib

import numpy as np
import pillow_heif
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID

pillow_heif.register_heif_opener()

Size = tuple[int, int]

ORIENTATION = 0x0112
"""Tag of EXIF."""

EXPLICIT_VR = "1.2.840.10008.1.2.1"
IMPLICIT_VR = "1.2.840.10008.1.2"
RLE = "1.2.840.10008.1.2.5"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
DERMOSCOPY = "1.2.840.10008.5.1.4.1.1.77.1.7"
COMPUTED_TOMOGRAPHY = "1.2.840.10008.5.1.4.1.1.2"

_COARSE = (32, 24)
_STRIP_ROWS = 512
_GRAIN_EDGE = 512
_GRAIN_SHARE = 0.12
"""Makes a JPEG about as large as a camera's."""


def paint(name: str, size: Size) -> Image.Image:
    """Skin, a darker lesion in its middle, and grain."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    skin = rng.integers((170, 120, 95), (226, 176, 150))
    coarse = Image.fromarray(np.clip(skin + rng.integers(-14, 15, (_COARSE[1], _COARSE[0], 3)), 0, 255).astype(np.uint8))
    lesion = tuple(int(value) for value in rng.integers((60, 35, 25), (140, 90, 80)))
    left, top, width, height = (int(value) for value in rng.integers((7, 5, 9, 7), (12, 9, 15, 11)))
    ImageDraw.Draw(coarse).ellipse((left, top, left + width, top + height), fill=lesion)
    grain = Image.fromarray(rng.integers(0, 256, (_STRIP_ROWS, _GRAIN_EDGE, 3), dtype=np.uint8))
    width, height = size
    wide = Image.new("RGB", (width, min(height, _STRIP_ROWS)))
    for x in range(0, width, _GRAIN_EDGE):
        wide.paste(grain, (x, 0))
    picture = Image.new("RGB", size)
    # In strips, for three pictures of 48 megapixels at once would need half a gigabyte.
    for y in range(0, height, _STRIP_ROWS):
        rows = min(_STRIP_ROWS, height - y)
        box = (0.0, y / height * _COARSE[1], float(_COARSE[0]), (y + rows) / height * _COARSE[1])
        strip = coarse.resize((width, rows), Image.Resampling.BICUBIC, box=box)
        picture.paste(Image.blend(strip, wide.crop((0, 0, width, rows)), _GRAIN_SHARE), (0, y))
    return picture


def flat(size: Size) -> Image.Image:
    """Grey all over: many pixels in few bytes."""
    return Image.new("L", size, 128)


def encode(picture: Image.Image, format_name: str, **options: object) -> bytes:
    """In one of Pillow's formats."""
    buffer = io.BytesIO()
    picture.save(buffer, format_name, **options)
    return buffer.getvalue()


def oriented(orientation: int) -> bytes:
    """EXIF that says how the camera was held."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes()


def deep_grey(name: str, size: Size) -> Image.Image:
    """Grey with 16 bits."""
    return Image.fromarray(np.asarray(paint(name, size).convert("L")).astype(np.uint16) * 257)


def dicom(
    picture: Image.Image,
    syntax: str = EXPLICIT_VR,
    photometric: str = "RGB",
    frame: bytes | None = None,
    sop_class: str = DERMOSCOPY,
) -> bytes:
    """A photograph in DICOM, of nobody.

    Args:
        picture: RGB or grey.
        syntax: the transfer syntax's UID.
        photometric: DICOM's name of the colour space.
        frame: the compressed picture; None where the syntax is native.
        sop_class: what kind of picture it claims to be.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    dataset.Columns, dataset.Rows = picture.size
    dataset.SamplesPerPixel = len(picture.getbands())
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    if dataset.SamplesPerPixel > 1:
        dataset.PlanarConfiguration = 0
    dataset.add_new(0x7FE00010, "OB", picture.tobytes() if frame is None else encapsulate([frame]))
    dataset["PixelData"].is_undefined_length = frame is not None
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def run_lengths(picture: Image.Image) -> bytes:
    """A frame of DICOM's RLE (PS3.5, annex G): each row in literal runs, a plane for each sample."""
    planes = []
    for band in picture.split():
        rows = np.asarray(band)
        pieces = (bytes([len(run) - 1]) + run for row in rows for run in _runs(row.tobytes()))
        plane = b"".join(pieces)
        planes.append(plane + bytes(len(plane) % 2))
    offsets = [64]
    for plane in planes[:-1]:
        offsets.append(offsets[-1] + len(plane))
    header = np.zeros(16, "<u4")
    header[0] = len(planes)
    header[1 : 1 + len(planes)] = offsets
    return header.tobytes() + b"".join(planes)


def _runs(row: bytes) -> list[bytes]:
    return [row[start : start + 128] for start in range(0, len(row), 128)]
