"""Painted lesions: pictures that may travel with a version, which those it was trained on may not."""

import numpy as np
import numpy.typing as npt

from serving.contract import IMAGE_SHAPE, IMAGE_SIZE

COUNT = 6


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
