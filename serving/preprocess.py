"""Picture -> model input, the same way in training and in the gateway: a model must see what it has learnt from."""

import contextlib
import io
import struct
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps

from serving.contract import IMAGE_SIZE

DAMAGE: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    ZeroDivisionError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    struct.error,
)
"""What Pillow's parsers raise on damaged bytes; a fuzz test feeds them."""


JPEG_FORMATS: Final = ("JPEG", "MPO")
"""Pillow's names: a JPEG with further pictures behind its end (CIPA DC-007), as many telephones write it, is an MPO there."""


MIN_DECODED_EDGE: Final = IMAGE_SIZE * 3 // 2
"""To which a large picture may be reduced while it is decoded: what the model then sees stays that of the whole picture, within
half a grey level under a sensor's noise (tests/unit/serving/test_preprocess.py)."""


def to_rgb(opened: Image.Image) -> Image.Image:
    """Decode an opened picture: upright, in sRGB as far as its profile tells, transparent parts white, without its metadata.

    Large pictures come out smaller, with edges of at least `MIN_DECODED_EDGE`. Of an animation the first frame counts.

    Args:
        opened: by Pillow, of any mode but floating point, and not decoded yet.

    Raises:
        ValueError: floating point pixels have no defined range.
        Exception: one of `DAMAGE` where the bytes are no whole picture.
    """
    if opened.mode == "F":
        raise ValueError("floating point pixels have no defined range")
    if opened.format in JPEG_FORMATS:
        # The decoder halves the scale, up to three times: what comes after it costs as little for 12 megapixels as for one.
        opened.draft("RGB", (MIN_DECODED_EDGE, MIN_DECODED_EDGE))
    opened.load()
    profile = opened.info.get("icc_profile")
    _turn_upright(opened)
    if opened.mode.startswith("I"):
        return _from_16_bits(opened)
    small = _reduce(opened)
    if profile and small.mode in ("RGB", "CMYK", "L"):
        small = _to_srgb(small, profile)
    if small.has_transparency_data:
        white = Image.new("RGBA", small.size, "white")
        small = Image.alpha_composite(white, small.convert("RGBA"))
    rgb = small.convert("RGB")
    # Pillow carries comments, EXIF and profiles along.
    rgb.info = {}
    return rgb


def to_model_input(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """Resize a decoded RGB picture to the contract's shape.

    The whole picture is squeezed into the square, as in the seed's recipe: a centre crop could cut off a lesion near the edge.
    Antialiased bilinear resampling, so that a picture gives nearly the same pixels at whatever size it was captured.

    Args:
        picture: RGB, upright (orientation already applied), any size.

    Returns:
        uint8, shape [224, 224, 3].

    Raises:
        ValueError: the picture is not RGB.
    """
    if picture.mode != "RGB":
        raise ValueError(f"expected an RGB picture, got mode {picture.mode}")
    resized = picture.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(resized, dtype=np.uint8)


def _turn_upright(opened: Image.Image) -> None:
    """In place, for most pictures need no turn and a copy of all pixels would be for nothing."""
    # Metadata that cannot be read say nothing against the pixels.
    with contextlib.suppress(*DAMAGE):
        ImageOps.exif_transpose(opened, in_place=True)


def _reduce(picture: Image.Image) -> Image.Image:
    """As the JPEG decoder does it: what follows would copy every pixel several times."""
    factor = _reduction(picture.size)
    if factor == 1:
        return picture
    if picture.mode in ("1", "P", "PA"):
        picture = picture.convert("L" if picture.mode == "1" else "RGBA" if picture.has_transparency_data else "RGB")
    return picture.reduce(factor)


def _reduction(size: tuple[int, int]) -> int:
    return max(min(size) // MIN_DECODED_EDGE, 1)


def _to_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """A picture whose profile cannot be used is taken as it is: a wrong tint is better than no answer."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return picture
    return picture if converted is None else converted


def _from_16_bits(picture: Image.Image) -> Image.Image:
    """Scale by the range of the type: Pillow's own conversion would clip at 255, and it cannot reduce these."""
    values = np.asarray(picture)
    factor = _reduction(picture.size)
    height, width = (edge // factor for edge in values.shape)
    blocks = values[: height * factor, : width * factor].reshape(height, factor, width, factor)
    means = blocks.mean(axis=(1, 3), dtype=np.float32)
    scaled = np.clip(means / 257.0, 0, 255).round().astype(np.uint8)
    return Image.fromarray(scaled).convert("RGB")
