"""Painted lesions: pictures that may travel with a version, which those it was trained on may not.

`python -m training.golden` writes the one that the gateway shows to the model server again and again.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.contract import GOLDEN_PICTURE, IMAGE_SHAPE, IMAGE_SIZE

COUNT = 6

UPLOAD_SHAPE = (240, 320, 3)
"""Another size and another shape than the model's input: the way from the one to the other is part of what is checked."""

_PIGMENTS = np.array([[35.0, 25, 25], [95, 55, 40], [150, 95, 70], [110, 110, 130], [160, 70, 70]])
_SEED = 20
"""Of those tried one to which version 2 gives a probability far from 0 and 1: other weights give another."""


def paint_golden_pictures() -> npt.NDArray[np.uint8]:
    """A few dark, uneven spots on skin, from small and even to large and ragged: uint8 [COUNT, 224, 224, 3]."""
    rng = np.random.default_rng(2026)
    down, right = np.meshgrid(*2 * [np.linspace(-1, 1, IMAGE_SIZE)], indexing="ij")
    angle, from_centre = np.arctan2(down, right), np.hypot(down, right)
    pictures = np.empty((COUNT, *IMAGE_SHAPE), np.uint8)
    for number in range(COUNT):
        raggedness = number / COUNT
        waves = sum(np.sin(k * angle + rng.uniform(0, 2 * np.pi)) / k for k in range(2, 7))
        radius = 0.3 + 0.08 * number + 0.15 * raggedness * waves
        spot = 1 / (1 + np.exp((from_centre - radius) / 0.03))
        shade = 1 + 0.5 * raggedness * np.sin(rng.uniform(2, 6) * right + rng.uniform(2, 6) * down)
        skin, pigment = rng.uniform([190, 140, 120], [235, 185, 170]), rng.uniform([70, 40, 30], [130, 90, 80])
        colour = skin + spot[..., None] * (pigment * shade[..., None] - skin)
        pictures[number] = np.clip(colour + rng.normal(0, 4, IMAGE_SHAPE), 0, 255).astype(np.uint8)
    return pictures


def paint_upload() -> npt.NDArray[np.uint8]:
    """A large, ragged spot of several colours: uint8 `UPLOAD_SHAPE`."""
    rng = np.random.default_rng(_SEED)
    height, width, _ = UPLOAD_SHAPE
    down, right = np.meshgrid(np.linspace(-0.75, 0.75, height), np.linspace(-1, 1, width), indexing="ij")

    def waves(count: int, most: float) -> npt.NDArray[np.float64]:
        """Smooth unevenness, [height, width]."""
        return sum(
            rng.uniform(0.5, 1)
            * np.sin(rng.uniform(-most, most) * right + rng.uniform(-most, most) * down + rng.uniform(0, 2 * np.pi))
            for _ in range(count)
        )

    angle, from_centre = np.arctan2(down, right), np.hypot(down, right)
    radius = 0.5 + 0.15 * sum(np.sin(k * angle + rng.uniform(0, 2 * np.pi)) / k for k in range(1, 9))
    spot = 1 / (1 + np.exp((from_centre - radius) / 0.1))
    shares = np.exp(1.5 * np.stack([waves(5, 26) for _ in _PIGMENTS]))
    pigment = np.tensordot(shares / shares.sum(axis=0), _PIGMENTS, axes=(0, 0))
    skin = np.array([212, 175, 150]) + 6 * waves(4, 6)[..., None]
    colour = skin + spot[..., None] * (pigment - skin)
    return np.clip(colour + rng.normal(0, 2, (height, width, 1)), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    Image.fromarray(paint_upload()).save(GOLDEN_PICTURE, optimize=True)
