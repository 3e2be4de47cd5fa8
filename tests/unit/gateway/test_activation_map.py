import io

import numpy as np
import pytest
from PIL import Image

from gateway.activation_map import COLOUR, MAX_EDGE, MAX_OPACITY, draw

GREY = 120
PICTURE = Image.new("RGB", (700, 700), (GREY, GREY, GREY))


def cells(background=0.0, **at):
    grid = np.full((7, 7), background, np.float32)
    for place, value in at.items():
        grid[int(place[1]), int(place[2])] = value
    return grid


def drawn(grid, picture=PICTURE):
    overlay = draw(picture, grid)
    opened = Image.open(io.BytesIO(overlay.png))
    assert overlay.size == opened.size
    return np.asarray(opened).astype(int), overlay


def cell(pixels, row, column):
    """Colour in the middle of a cell."""
    height, width, _ = pixels.shape
    return pixels[int((row + 0.5) * height / 7), int((column + 0.5) * width / 7)]


def blended(opacity):
    return [GREY + (channel - GREY) * opacity for channel in COLOUR]


@pytest.mark.parametrize(
    "grid",
    [cells(), cells(3.0), cells(-3.0), cells(-5.0, c11=-0.1), cells(0.0, c11=0.05), cells(8.0, c11=8.5)],
    ids=["null", "flat", "negative", "all against", "next to nothing", "nearly flat"],
)
def test_a_map_that_shows_nothing_is_not_drawn(grid):
    assert draw(PICTURE, grid) is None


def test_cells_get_the_colour_by_their_own_number_and_the_others_stay_grey():
    pixels, overlay = drawn(cells(-2.0, c12=4.0, c50=2.0, c66=-6.0))

    assert overlay.full_scale == 4.0
    assert cell(pixels, 1, 2) == pytest.approx(blended(MAX_OPACITY), abs=2)
    assert cell(pixels, 5, 0) == pytest.approx(blended(MAX_OPACITY / 2), abs=2)
    clear = np.ones((7, 7), bool)
    clear[1, 2] = clear[5, 0] = False
    assert all(list(cell(pixels, row, column)) == [GREY] * 3 for row, column in np.argwhere(clear))


def test_a_cell_is_a_square_of_one_colour():
    """Smoothed, seven cells would look like a photograph."""
    pixels, _ = drawn(cells(c33=4.0))
    edge = len(pixels) / 7
    inside = pixels[int(3 * edge) + 1 : int(4 * edge) - 1, int(3 * edge) + 1 : int(4 * edge) - 1].reshape(-1, 3)
    beside = pixels[int(3 * edge) + 1 : int(4 * edge) - 1, : int(3 * edge) - 1].reshape(-1, 3)

    assert len(np.unique(inside, axis=0)) == len(np.unique(beside, axis=0)) == 1


def test_a_weak_map_is_drawn_weakly():
    pixels, overlay = drawn(cells(-1.0, c33=0.25))

    assert overlay.full_scale == 1.0
    assert cell(pixels, 3, 3) == pytest.approx(blended(MAX_OPACITY / 4), abs=2)


@pytest.mark.parametrize(("size", "expected"), [((2000, 1000), (512, 256)), ((300, 200), (300, 200)), ((64, 4000), (8, 512))])
def test_the_drawing_is_bounded_and_keeps_the_shape(size, expected):
    _, overlay = drawn(cells(c00=3.0), Image.new("RGB", size))

    assert overlay.size == expected
    assert max(overlay.size) <= MAX_EDGE


def test_the_picture_under_it_is_grey_and_stays_as_it_was():
    picture = Image.new("RGB", (100, 100), (200, 40, 40))

    pixels, _ = drawn(cells(c00=3.0), picture)

    assert len(set(cell(pixels, 6, 6))) == 1
    assert picture.getpixel((0, 0)) == (200, 40, 40)
