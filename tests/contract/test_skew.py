"""Training and gateway must make the same pixels of the same file."""

import csv

import numpy as np
import pytest

from gateway.images import decode, model_input
from tests.conftest import DATA
from tests.pictures import encode, textured
from training.data import read_picture


def real_pictures():
    """Every 400th picture of the data, where they are."""
    if not (DATA / "labels.csv").exists():
        return []
    with (DATA / "labels.csv").open(newline="") as file:
        return [DATA / row["path"] for row in list(csv.DictReader(file))[::400]]


def both_ways(path):
    return read_picture(path).astype(int), model_input(decode(path.read_bytes(), 50_000_000)).astype(int)


@pytest.mark.parametrize(
    ("kind", "size"), [("PNG", (200, 150)), ("JPEG", (224, 224)), ("JPEG", (600, 450)), ("PNG", (1000, 1300))]
)
def test_the_same_file_gives_the_same_pixels(tmp_path, kind, size):
    path = tmp_path / f"picture.{kind.lower()}"
    path.write_bytes(encode(textured(size), kind))

    training, gateway = both_ways(path)

    assert np.array_equal(training, gateway)


def test_a_reduced_decode_differs_by_less_than_a_grey_level(tmp_path):
    path = tmp_path / "large.jpg"
    path.write_bytes(encode(textured((4000, 3000)), "JPEG", quality=92))

    training, gateway = both_ways(path)

    assert np.abs(training - gateway).mean() < 1.0


def test_real_pictures_give_the_same_pixels():
    for path in real_pictures():
        training, gateway = both_ways(path)
        assert np.array_equal(training, gateway), path
