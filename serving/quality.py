"""How good a picture is to look at: two measures, and the thresholds from which on a warning goes with its answer.

`python -m training quality --data CSV` prints what the thresholds are chosen by, on lesions of the training split:

- blurry: flags at most 1 % of the lesions of every source. bright: at most 0.1 %. Of the sources the most lenient threshold
  counts, rounded to the lenient side;
- dark: half of what 0.1 % would give. A picture's grey level is that of the skin, too, and these sources show light skin nearly
  only: the same light on very dark skin gives about half of it, and nobody's skin is a fault of the picture;
- low resolution: a shorter edge below that of every lesion the model has learnt from.

They say that a picture is unlike those the model has been scored on, not that a reader could not judge it.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from PIL import Image

from serving.contract import IMAGE_SIZE

Warning = Literal["blurry", "dark", "bright", "low_resolution"]  # noqa: A001  (the API's word)
WARNINGS: Final[tuple[Warning, ...]] = ("blurry", "dark", "bright", "low_resolution")

BLURRY_SHARPNESS: Final = 4.0
DARK_BRIGHTNESS: Final = 36.0
BRIGHT_BRIGHTNESS: Final = 233.0
LOW_RESOLUTION_EDGE: Final = 150
"""Pixels."""


@dataclass(frozen=True)
class Measures:
    """Of one picture at the model's size.

    Attributes:
        sharpness: variance of the Laplacian of the grey picture, in squared grey levels: the less of it, the less detail
            (Pech-Pacheco et al., ICPR 2000).
        brightness: mean grey level, 0 to 255 (ITU-R BT.601 luma).
    """

    sharpness: float
    brightness: float


def measure(rgb: Image.Image) -> Measures:
    """Measure a decoded RGB picture of any size."""
    grey = np.asarray(rgb.convert("L").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR), dtype=np.float64)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return Measures(float(laplacian.var()), float(grey.mean()))


def find_warnings(measures: Measures, shorter_edge: int) -> tuple[Warning, ...]:
    """What makes a picture's classification less sure.

    Args:
        measures: of the picture.
        shorter_edge: of the file, in pixels, before any reduction.
    """
    found: dict[Warning, bool] = {
        "blurry": measures.sharpness < BLURRY_SHARPNESS,
        "dark": measures.brightness < DARK_BRIGHTNESS,
        "bright": measures.brightness > BRIGHT_BRIGHTNESS,
        "low_resolution": shorter_edge < LOW_RESOLUTION_EDGE,
    }
    return tuple(name for name in WARNINGS if found[name])
