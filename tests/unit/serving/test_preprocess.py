import io

import numpy as np
import pytest
from PIL import Image

from serving.contract import IMAGE_SHAPE
from serving.preprocess import MIN_DECODED_EDGE, to_model_input, to_rgb
from tests.pictures import encode, textured


def test_shape_and_type_are_the_contracts():
    image = to_model_input(textured((640, 480)))

    assert image.shape == IMAGE_SHAPE
    assert image.dtype == np.uint8


def test_the_whole_picture_is_seen():
    """A centre crop would lose what is painted at the edge."""
    picture = Image.new("RGB", (900, 300), "black")
    picture.paste((255, 255, 255), (0, 0, 30, 300))

    assert to_model_input(picture)[:, :6].mean() > 200


def test_the_capture_size_hardly_matters():
    small, large = (to_model_input(textured(size)).astype(int) for size in ((400, 300), (3200, 2400)))

    assert np.abs(small - large).mean() < 1.5


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
def test_other_modes_are_the_callers_to_convert(mode):
    with pytest.raises(ValueError, match=mode):
        to_model_input(textured().convert(mode))


@pytest.mark.parametrize("size", [(4000, 3000), (1024, 768)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_reduced_picture_gives_the_input_of_the_whole_one(kind, size):
    """Under a sensor's noise, which resampling treats worst."""
    noise = np.random.default_rng(1).normal(0, 8, (*size[::-1], 3))
    data = encode(Image.fromarray(np.clip(textured(size) + noise, 0, 255).astype(np.uint8)), kind)
    whole = to_model_input(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    reduced = to_rgb(Image.open(io.BytesIO(data)))

    assert MIN_DECODED_EDGE <= min(reduced.size) < 2 * MIN_DECODED_EDGE
    assert np.abs(to_model_input(reduced) - whole).mean() < 0.5
