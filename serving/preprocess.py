"""Decoded picture -> model input. The one preprocessing function: training and the gateway both call it."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.contract import IMAGE_SIZE


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
