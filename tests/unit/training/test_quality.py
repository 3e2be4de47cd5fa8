import numpy as np
import pytest
from PIL import Image, ImageFilter

from serving.quality import (
    BLURRY_SHARPNESS,
    BRIGHT_BRIGHTNESS,
    DARK_BRIGHTNESS,
    LOW_RESOLUTION_EDGE,
    Measures,
    find_warnings,
    measure,
)
from tests.pictures import encode, textured
from training.data import Example
from training.quality import BLUR_RADII_PX, DARK_SKIN, Row, format_flagged, format_quality, measure_lesions, rule


@pytest.fixture
def examples(tmp_path):
    """Ten lesions of two sources in each of two splits, and pictures that have no part in it."""
    found = []
    for split in ("train", "val", "test"):
        for index in range(5):
            for source, size in (("small", (200, 150)), ("large", (600, 450))):
                path = tmp_path / f"{split}-{source}-{index}.png"
                path.write_bytes(encode(textured(size, seed=index), "PNG"))
                label = ("benign", "malignant", "premalignant")[index % 3]
                found.append(Example(path, label, "nv", source, str(len(found)), split))
    path = tmp_path / "none.png"
    path.write_bytes(encode(Image.new("RGB", (100, 100)), "PNG"))
    return [*found, Example(path, "none", "black", "other", "n", "train")]


def row(source="a", sharpness=10.0, brightness=150.0, shorter_edge=224):
    return Row(source, sharpness, brightness, shorter_edge, (), (False, True, True))


def test_a_blurred_picture_is_less_sharp_and_as_bright():
    picture = textured()
    sharpness, brightness = zip(
        *((found.sharpness, found.brightness) for found in map(measure, [picture, *_blurred(picture)])), strict=True
    )

    assert list(sharpness) == sorted(sharpness, reverse=True)
    assert sharpness[-1] < sharpness[0] / 2
    assert np.ptp(brightness) < 1


def _blurred(picture):
    return [picture.filter(ImageFilter.GaussianBlur(radius)) for radius in BLUR_RADII_PX]


def test_brightness_is_the_mean_grey_level():
    assert measure(Image.new("RGB", (300, 200), (120, 120, 120))) == Measures(0.0, 120.0)


@pytest.mark.parametrize(
    ("measures", "edge", "expected"),
    [
        (Measures(BLURRY_SHARPNESS, DARK_BRIGHTNESS), LOW_RESOLUTION_EDGE, ()),
        (Measures(BLURRY_SHARPNESS, BRIGHT_BRIGHTNESS), LOW_RESOLUTION_EDGE, ()),
        (Measures(BLURRY_SHARPNESS - 0.1, 150), 300, ("blurry",)),
        (Measures(50, DARK_BRIGHTNESS - 0.1), 300, ("dark",)),
        (Measures(50, BRIGHT_BRIGHTNESS + 0.1), 300, ("bright",)),
        (Measures(50, 150), LOW_RESOLUTION_EDGE - 1, ("low_resolution",)),
        (Measures(0, 0), 10, ("blurry", "dark", "low_resolution")),
    ],
)
def test_a_threshold_itself_is_good_enough(measures, edge, expected):
    assert find_warnings(measures, edge) == expected


def test_of_the_sources_the_most_lenient_one_counts():
    rows = [row("a", sharpness=10, brightness=100, shorter_edge=224), row("b", sharpness=5, brightness=200, shorter_edge=150)]

    assert rule(rows) == {"blurry": 5, "dark": DARK_SKIN * 100, "bright": 200, "low_resolution": 150}


def test_the_rule_flags_one_percent():
    rows = [row(sharpness=float(value)) for value in range(1000)]

    assert sum(one.sharpness < rule(rows)["blurry"] for one in rows) == 10


def test_the_rule_flags_one_of_a_thousand_as_bright_and_halves_what_is_dark():
    rows = [row(brightness=float(value)) for value in range(1, 1001)]

    assert sum(one.brightness > rule(rows)["bright"] for one in rows) == 1
    assert rule(rows)["dark"] == pytest.approx(DARK_SKIN * 2, abs=0.1)


def test_only_lesions_of_the_split_are_measured(examples):
    rows = measure_lesions(examples, "train")

    assert [one.source for one in rows] == ["small", "large"] * 5
    assert {one.shorter_edge for one in rows} == {150, 450}


def test_the_tables_say_what_is_flagged(examples):
    printed = format_quality(examples)

    assert "| sharpness | large | 5 |" in printed
    assert "low_resolution: the rule gives 150.00, the threshold is 150" in printed
    assert printed.count("| small | 5 | 0.00% | 0.00% | 0.00% | 0.00% |") == 2
    assert "| a | 1 | 0.00% | 0.00% | 0.00% | 0.00% | 0.00% | 100.00% | 100.00% |" in format_flagged([row()])
