import numpy as np
from PIL import Image

from serving.contract import GOLDEN_PICTURE
from training.golden import UPLOAD_SHAPE, paint_upload


def test_the_picture_that_is_shipped_is_the_painted_one():
    """`python -m training.golden` writes it; with another one, no version's recorded answer counts any more."""
    with Image.open(GOLDEN_PICTURE) as opened:
        assert (opened.format, opened.mode, opened.info) == ("PNG", "RGB", {})
        pixels = np.asarray(opened)

    assert pixels.shape == UPLOAD_SHAPE
    np.testing.assert_array_equal(pixels, paint_upload())
