"""Untrusted bytes -> a verified, upright RGB picture -> the model's input. Nothing here writes a file."""

import io
import warnings
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from gateway.errors import BrokenPicture, NoPicture, NotAPicture, PictureTooLarge, PictureTooSmall
from serving.contract import IMAGE_SIZE
from serving.preprocess import DAMAGE, to_model_input, to_rgb

# Our own limit is checked before decoding and is lower; Pillow's would only come first with another error.
Image.MAX_IMAGE_PIXELS = None

FORMATS: Final = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
MIN_EDGE: Final = 64
"""Below it a lesion has too few pixels for anybody to judge."""

MAX_UNREDUCED_PIXELS: Final = 25_000_000
"""Of any format but JPEG: those are decoded whole, at up to four bytes a pixel, however small the file is."""

Warning = Literal["blurry", "dark", "bright", "low_resolution"]  # noqa: A001  (the API's word)
WARNINGS: Final[tuple[Warning, ...]] = ("blurry", "dark", "bright", "low_resolution")

# Provisional: about the first percentile of the training pictures, not yet calibrated against readers.
LOW_RESOLUTION_EDGE: Final = 128
DARK_MEAN: Final = 45.0
BRIGHT_MEAN: Final = 235.0
BLURRY_VARIANCE: Final = 4.0


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

    Large JPEGs are decoded at a reduced scale, at least twice the model's size. Of an animation the first frame counts.

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
        try:
            opened = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError as error:
            raise NotAPicture("the file is not a picture in a format we read") from error
        except DAMAGE as error:
            raise BrokenPicture("the picture is damaged") from error
        width, height = opened.size
        limit = max_pixels if opened.format == "JPEG" else min(max_pixels, MAX_UNREDUCED_PIXELS)
        if width * height > limit:
            raise PictureTooLarge(width * height, limit)
        if opened.mode == "F":
            raise NotAPicture("floating point pixels have no defined range")
        if min(width, height) < MIN_EDGE:
            raise PictureTooSmall(width, height, MIN_EDGE)
        try:
            rgb = to_rgb(opened)
        except DAMAGE as error:
            raise BrokenPicture("the picture is damaged or not complete") from error
    return Picture(rgb, _find_warnings(rgb, min(width, height)))


def model_input(picture: Picture) -> npt.NDArray[np.uint8]:
    """The model's input of a verified picture, uint8 [224, 224, 3]."""
    return to_model_input(picture.rgb)


def _find_warnings(rgb: Image.Image, shorter_edge: int) -> tuple[Warning, ...]:
    grey = np.asarray(rgb.convert("L").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR), dtype=np.float64)
    # Variance of the Laplacian: the less of it, the less detail (Pech-Pacheco et al., ICPR 2000).
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    found: dict[Warning, bool] = {
        "blurry": bool(laplacian.var() < BLURRY_VARIANCE),
        "dark": bool(grey.mean() < DARK_MEAN),
        "bright": bool(grey.mean() > BRIGHT_MEAN),
        "low_resolution": shorter_edge < LOW_RESOLUTION_EDGE,
    }
    return tuple(name for name in WARNINGS if found[name])
