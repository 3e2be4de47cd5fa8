"""A picture's bytes -> the model's input: every contestant is given ours, so that answers can be compared."""

import io
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.preprocess import to_model_input, to_rgb


def read_file(file: IO[bytes]) -> npt.NDArray[np.uint8]:
    """Uint8 [224, 224, 3]."""
    with Image.open(file) as opened:
        return to_model_input(to_rgb(opened))


def read_bytes(picture: bytes) -> npt.NDArray[np.uint8]:
    """The same of bytes."""
    return read_file(io.BytesIO(picture))
