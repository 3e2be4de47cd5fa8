"""Painted pictures: what the tiny model makes of them is in their colours."""

import io

import numpy as np
from PIL import Image

COLOURS = {
    "malignant": (200, 40, 40),
    "benign": (50, 60, 40),
    "uncertain": (102, 60, 60),
    "out_of_scope": (20, 60, 230),
    "guarded": (230, 20, 230),
}


def paint(
    outcome: str = "benign", size: tuple[int, int] = (300, 200), format: str = "PNG", mode: str = "RGB", **save: object
) -> bytes:
    return encode(Image.new("RGB", size, COLOURS[outcome]).convert(mode), format, **save)


def encode(picture: Image.Image, format: str, **save: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **save)
    return buffer.getvalue()


def textured(size: tuple[int, int] = (300, 200), seed: int = 1) -> Image.Image:
    """Smooth blobs: with detail enough to be sharp, and little that JPEG would lose."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 200, (24, 32, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)
