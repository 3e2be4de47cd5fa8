"""The activation map over the picture: where the model found what it counts as malignant, drawn from the map's own numbers."""

import base64
import io
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

MAX_EDGE: Final = 512
"""Of the drawing, in pixels: a map of seven cells an edge shows no more on a larger one."""

MIN_FULL_SCALE: Final = 1.0
"""Logits of a cell that gets the full colour, at least: scaled by its largest cell, a map of next to nothing would glow too."""

MIN_CONTRAST: Final = 0.1
"""Of the full scale, from the weakest cell to the strongest; below it no place stands out, and none must seem to."""

COLOUR: Final = (0, 90, 220)
"""Over grey, for lesions may be blue as well. No common colour blindness takes blue for grey."""

MAX_OPACITY: Final = 0.6


@dataclass(frozen=True)
class Overlay:
    """A drawing.

    Attributes:
        png: the file.
        size: width and height.
        full_scale: logits of a cell that gets the full colour.
    """

    png: bytes
    size: tuple[int, int]
    full_scale: float

    def to_document(self) -> dict[str, object]:
        """As it goes into JSON."""
        width, height = self.size
        data = base64.b64encode(self.png).decode()
        return {"media_type": "image/png", "width": width, "height": height, "full_scale": self.full_scale, "data": data}


def reduce(rgb: Image.Image) -> Image.Image:
    """All of a picture that a map is drawn over: small and grey. What waits for the model's answer need not hold more."""
    grey = rgb.convert("L")
    grey.thumbnail((MAX_EDGE, MAX_EDGE))
    return grey


def draw(background: Image.Image, cells: npt.NDArray[np.float32]) -> Overlay | None:
    """Lay the cells that speak for malignant over the picture in grey, the stronger the less transparent.

    Cells are drawn as the squares they are: smoothed, they would seem to know more. What speaks against malignant stays clear.

    Args:
        background: the picture, upright, in grey and reduced; another one is made so.
        cells: the activation map; its cells cover the whole picture.

    Returns:
        None when there is nothing to draw: no cell speaks for malignant, or none more than the others.
    """
    strongest = float(cells.max())
    full_scale = max(strongest, MIN_FULL_SCALE)
    if strongest <= 0 or strongest - float(cells.min()) < MIN_CONTRAST * full_scale:
        return None
    picture = reduce(background).convert("RGB")
    opacity = np.clip(cells / full_scale, 0, 1) * MAX_OPACITY * 255
    mask = Image.fromarray(opacity.round().astype(np.uint8)).resize(picture.size, Image.Resampling.NEAREST)
    picture.paste(COLOUR, mask=mask)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return Overlay(buffer.getvalue(), picture.size, full_scale)
