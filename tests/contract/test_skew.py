"""Training and gateway must make the same pixels of the same file."""

import csv

import numpy as np
import pytest
from PIL import Image, ImageCms

from gateway.images import decode, model_input
from tests.conftest import DATA
from tests.pictures import encode, textured
from training.data import read_picture


def real_pictures():
    """Every 400th picture of the data."""
    with (DATA / "labels.csv").open(newline="") as file:
        return [DATA / row["path"] for row in list(csv.DictReader(file))[::400]]


def both_ways(path):
    return read_picture(path).astype(int), model_input(decode(path.read_bytes(), 50_000_000)).astype(int)


def files():
    """Name -> file: every way in which two decoders could differ."""
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = textured()
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    grey = np.asarray(textured().convert("L"), np.uint16)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes().replace(b"rXYZ", b"rTRX")
    return {
        "small.png": encode(textured((200, 150)), "PNG"),
        "square.jpg": encode(textured((224, 224)), "JPEG"),
        "middle.jpg": encode(textured((600, 450)), "JPEG"),
        "large.jpg": encode(textured((4000, 3000)), "JPEG", quality=92),
        "large.png": encode(textured((1000, 1300)), "PNG"),
        "turned.jpg": encode(textured(), "JPEG", exif=turned),
        "transparent.png": encode(clear, "PNG"),
        "sixteen.png": encode(Image.fromarray(grey * 257), "PNG"),
        "profile.png": encode(textured(), "PNG", icc_profile=profile),
        "print.tiff": encode(textured().convert("CMYK"), "TIFF"),
        "palette.bmp": encode(textured().convert("P"), "BMP"),
    }


@pytest.mark.parametrize("name", files())
def test_the_same_file_gives_the_same_pixels(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(files()[name])

    training, gateway = both_ways(path)

    assert np.array_equal(training, gateway)


@pytest.mark.skipif(not (DATA / "labels.csv").exists(), reason=f"no pictures: {DATA / 'labels.csv'} is not there")
def test_real_pictures_give_the_same_pixels():
    paths = real_pictures()

    assert paths
    for path in paths:
        training, gateway = both_ways(path)
        assert np.array_equal(training, gateway), path
