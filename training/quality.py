"""What the thresholds of the quality warnings are chosen by: percentiles of lesions, and what is flagged of blurred copies."""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from serving.contract import CLASSES, IMAGE_SIZE
from serving.preprocess import to_rgb
from serving.quality import (
    BLURRY_SHARPNESS,
    BRIGHT_BRIGHTNESS,
    DARK_BRIGHTNESS,
    LOW_RESOLUTION_EDGE,
    WARNINGS,
    Warning,  # noqa: A004  (the API's word)
    find_warnings,
    measure,
)
from training.data import Example

LABELS = (*CLASSES, "premalignant")
BLUR_RADII_PX = (1, 2, 4)
"""Standard deviations of the Gaussian, at the model's size."""

PERCENTILES = (0, 0.1, 1, 5, 50, 95, 99, 99.9, 100)
FLAGGED_PERCENT = {"sharpness": 1.0, "brightness": 0.1}
"""At most, of the lesions of a source, in the training split: the rule of `serving.quality`."""

DARK_SKIN = 0.5
"""Grey level of very dark skin, relative to light skin in the same light: about sRGB 82 to 158, for CIE L* 35 to 65."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One lesion: source, measures, shorter edge of the file in pixels, warnings, and whether each blurred copy is blurry."""

    source: str
    sharpness: float
    brightness: float
    shorter_edge: int
    warnings: tuple[Warning, ...]
    is_blurry_at: tuple[bool, ...]


def measure_lesions(examples: Sequence[Example], split: str) -> list[Row]:
    """Rows of the lesions of a split; `none` pictures have no part in it."""
    chosen = [example for example in examples if example.split == split and example.label in LABELS]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_row, (example.source for example in chosen), (example.path for example in chosen)))


def rule(rows: Sequence[Row]) -> dict[Warning, float]:
    """What the rule gives, not rounded: a picture above it is bright; below it blurry, dark, of low resolution."""
    by_source = _by_source(rows).values()

    def percentiles(name: str, percent: float) -> list[float]:
        return [float(np.percentile(_values(source, name), percent)) for source in by_source]

    return {
        "blurry": min(percentiles("sharpness", FLAGGED_PERCENT["sharpness"])),
        "dark": DARK_SKIN * min(percentiles("brightness", FLAGGED_PERCENT["brightness"])),
        "bright": max(percentiles("brightness", 100 - FLAGGED_PERCENT["brightness"])),
        "low_resolution": min(percentiles("shorter_edge", 0)),
    }


def format_percentiles(rows: Sequence[Row]) -> str:
    """A table of Markdown: percentiles of each measure and source."""
    lines = [
        "| measure | source | n | " + " | ".join(f"p{percent}" for percent in PERCENTILES) + " |",
        "|---|---|" + "---|" * (len(PERCENTILES) + 1),
    ]
    for name in ("sharpness", "brightness", "shorter_edge"):
        for source, own in _by_source(rows).items():
            figures = np.percentile(_values(own, name), PERCENTILES)
            lines.append(f"| {name} | {source} | {len(own)} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
    return "\n".join(lines)


def format_flagged(rows: Sequence[Row]) -> str:
    """A table of Markdown: what share of the pictures each threshold flags, and of their blurred copies as blurry."""
    blurs = [f"blurry at {radius} px" for radius in BLUR_RADII_PX]
    lines = [f"| source | n | {' | '.join((*WARNINGS, *blurs))} |", "|---|---|" + "---|" * (len(WARNINGS) + len(blurs))]
    for source, own in _by_source(rows).items():
        shares = [float(np.mean([name in row.warnings for row in own])) for name in WARNINGS]
        shares += [float(np.mean([row.is_blurry_at[index] for row in own])) for index in range(len(blurs))]
        lines.append(f"| {source} | {len(own)} | {' | '.join(f'{share:.2%}' for share in shares)} |")
    return "\n".join(lines)


def format_quality(examples: Sequence[Example]) -> str:
    """Everything the thresholds were chosen by, on the training split, and what they flag on validation."""
    train = measure_lesions(examples, "train")
    thresholds: dict[Warning, float] = {
        "blurry": BLURRY_SHARPNESS,
        "dark": DARK_BRIGHTNESS,
        "bright": BRIGHT_BRIGHTNESS,
        "low_resolution": LOW_RESOLUTION_EDGE,
    }
    given = rule(train)
    return "\n\n".join(
        [
            "Percentiles of the training lesions",
            format_percentiles(train),
            "\n".join(f"{name}: the rule gives {given[name]:.2f}, the threshold is {thresholds[name]:g}" for name in WARNINGS),
            "Flagged, training lesions",
            format_flagged(train),
            "Flagged, validation lesions",
            format_flagged(measure_lesions(examples, "val")),
        ]
    )


def _row(source: str, path: Path) -> Row:
    with Image.open(path) as opened:
        shorter_edge = min(opened.size)
        rgb = to_rgb(opened)
    measures = measure(rgb)
    seen = rgb.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
    copies = (measure(seen.filter(ImageFilter.GaussianBlur(radius))) for radius in BLUR_RADII_PX)
    return Row(
        source,
        measures.sharpness,
        measures.brightness,
        shorter_edge,
        find_warnings(measures, shorter_edge),
        tuple("blurry" in find_warnings(copy, shorter_edge) for copy in copies),
    )


def _by_source(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {source: [row for row in rows if row.source == source] for source in sorted({row.source for row in rows})}


def _values(rows: Sequence[Row], name: str) -> npt.NDArray[np.float64]:
    return np.array([getattr(row, name) for row in rows], dtype=np.float64)
