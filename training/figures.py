"""Figures of a run and of a model, as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def draw_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Accuracy and loss per epoch, training and validation, as in the seed's paper."""
    epochs = range(1, len(history) + 1)
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, name in zip(axes, ("accuracy", "loss"), strict=True):
        axis.plot(epochs, [row[name] for row in history], marker="o", label="training")
        axis.plot(epochs, [row[f"val_{name}"] for row in history], marker="s", linestyle="--", label="validation")
        axis.set(xlabel="epoch", title=name)
        axis.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
