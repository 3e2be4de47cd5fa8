"""Untrusted bytes -> a verified, upright RGB picture -> the model's input. Nothing here writes a file."""

import io
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pillow_heif
from PIL import Image, UnidentifiedImageError

from gateway import bombs, dicom
from gateway.errors import BrokenPicture, NoPicture, NotAPicture, PictureTooLarge, PictureTooSmall, Polyglot
from serving import quality
from serving.preprocess import DAMAGE, JPEG_FORMATS, to_model_input, to_rgb

# Our own limit is checked before decoding and is lower; Pillow's would only come first with another error.
Image.MAX_IMAGE_PIXELS = None
# What goes along with the picture of a telephone is never looked at; each of them could be as large as the picture.
pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)

FORMATS: Final = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF", "HEIF")
"""Pillow's names of what it reads here; DICOM comes on top."""

MIN_EDGE: Final = 64
"""Below it a lesion has too few pixels for anybody to judge."""

MAX_UNREDUCED_PIXELS: Final = 25_000_000
"""Of any format but JPEG: those are decoded whole, at up to four bytes a pixel, however small the file is."""

THUMBNAIL_EDGE: Final = 160
"""Of a thumbnail, in pixels; about 5 kB."""

FRONT_BYTES: Final = 1024
"""As far as a browser, or a reader of PDF, looks for what a file is."""

_BRANDS: Final = (b"ftypavif", b"ftypavis", b"ftypheic", b"ftypheix", b"ftypmif1")
"""So AVIF and HEIF begin, while a video has another brand; to Pillow the damaged ones are no pictures."""

_FRONT_MARKS: Final = (b"%pdf-", b"<html", b"<!doctype html", b"<script", b"<?php")
_ZIP_END: Final = b"PK\x05\x06"
_ZIP_END_BYTES: Final = 22
_ZIP_MAX_COMMENT_BYTES: Final = 65_535
_ZIP64_LOCATOR: Final = b"PK\x06\x07"
_ZIP64_LOCATOR_BYTES: Final = 20
_ZIP_ENTRY: Final = b"PK\x01\x02"

Warning = quality.Warning  # noqa: A001  (the API's word)


@dataclass(frozen=True)
class Picture:
    """A verified picture.

    Attributes:
        rgb: upright, sRGB as far as its profile tells.
        warnings: what makes its classification less sure.
    """

    rgb: Image.Image
    warnings: tuple[Warning, ...]


def decode(data: bytes, max_pixels: int) -> Picture:
    """Verify and decode an upload by what it is, not by what it is called.

    Large pictures come out reduced (`serving.preprocess`), JPEGs as they are decoded. Of an animation or of several frames the
    first counts, of several pictures in a HEIF or AVIF file the primary one.

    Args:
        data: the file.
        max_pixels: limit of width times height; for formats other than JPEG `MAX_UNREDUCED_PIXELS` holds as well.

    Raises:
        PictureError: its subclass says why.
    """
    if not data:
        raise NoPicture("the file is empty")
    with warnings.catch_warnings():
        # Pillow warns about odd metadata and large pictures; the limits here are our own.
        warnings.simplefilter("ignore")
        opened = _open_dicom(data, max_pixels) if dicom.is_dicom(data) else _open(data, max_pixels)
        shorter_edge = min(opened.size)
        try:
            rgb = to_rgb(opened)
        except DAMAGE as error:
            raise BrokenPicture("the picture is damaged or not complete") from error
    return Picture(rgb, quality.find_warnings(quality.measure(rgb), shorter_edge))


def model_input(picture: Picture) -> npt.NDArray[np.uint8]:
    """The model's input of a verified picture, uint8 [224, 224, 3]."""
    return to_model_input(picture.rgb)


def thumbnail(picture: Picture) -> bytes:
    """A verified picture in small, JPEG without metadata: to tell several apart, not to judge one."""
    small = picture.rgb.copy()
    small.thumbnail((THUMBNAIL_EDGE, THUMBNAIL_EDGE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Of no more than the header anything is decoded yet."""
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        if data[4:12] in _BRANDS:
            raise BrokenPicture("the picture is damaged") from error
        raise NotAPicture("the file is not a picture in a format we read") from error
    except DAMAGE as error:
        raise BrokenPicture("the picture is damaged") from error
    _refuse_polyglots(data)
    limit = max_pixels if opened.format in JPEG_FORMATS else min(max_pixels, MAX_UNREDUCED_PIXELS)
    _check_size(opened.size, limit)
    if opened.format in JPEG_FORMATS:
        bombs.check_scans(data)
    elif opened.format == "AVIF":
        bombs.check_avif_frames(data, limit)
    if opened.mode == "F":
        raise NotAPicture("floating point pixels have no defined range")
    return opened


def _open_dicom(data: bytes, max_pixels: int) -> Image.Image:
    _refuse_polyglots(data)
    header = dicom.read_header(data)
    limit = max_pixels if header.is_reduced else min(max_pixels, MAX_UNREDUCED_PIXELS)
    _check_size((header.columns, header.rows), min(limit, dicom.MAX_JPEG_2000_PIXELS) if header.is_jpeg_2000 else limit)
    return dicom.open_first_frame(header)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise PictureTooLarge(width * height, max_pixels)
    if min(width, height) < MIN_EDGE:
        raise PictureTooSmall(width, height, MIN_EDGE)


def _refuse_polyglots(data: bytes) -> None:
    """What a picture's end is followed by is nobody's business, unless it makes the file something else as well.

    Telephones append videos (motion photos) and further pictures; those files are pictures and nothing else.
    """
    front = data[:FRONT_BYTES].lower()
    if any(mark in front for mark in _FRONT_MARKS):
        raise Polyglot("the file is a picture and a document or script at once")
    if _ends_as_zip(data):
        raise Polyglot("the file is a picture and an archive at once")


def _ends_as_zip(data: bytes) -> bool:
    """Whether a reader of ZIP finds a list of entries at the end (APPNOTE 6.3.10, 4.3.16).

    Four bytes alone would be found in one of 65,000 large pictures by chance; that the list is where they say is no chance.
    """
    start = max(0, len(data) - _ZIP_END_BYTES - _ZIP_MAX_COMMENT_BYTES)
    end = data.find(_ZIP_END, start)
    while end >= 0:
        entries_bytes = int.from_bytes(data[end + 12 : end + 16], "little")
        entries = end - entries_bytes
        if entries >= 0 and data.startswith(_ZIP_ENTRY, entries):
            return True
        if data.startswith(_ZIP64_LOCATOR, max(0, end - _ZIP64_LOCATOR_BYTES)):
            return True
        end = data.find(_ZIP_END, end + 1)
    return False
