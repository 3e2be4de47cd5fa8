"""Figures of a run and of a model, as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from training.statistics import CALIBRATION_BINS, Floats

# No screen is needed, and none is looked for.
mpl.use("Agg")


def draw_curves(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Accuracy and loss per epoch, training and validation, as in the seed's paper."""
    epochs = range(1, len(history) + 1)
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axis, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        axis.plot(epochs, [row[name] for row in history], marker="o", label="training")
        axis.plot(epochs, [row[f"val_{name}"] for row in history], marker="s", linestyle="--", label="validation")
        axis.set(xlabel="epoch", title=name)
        axis.legend()
    figure.savefig(path, dpi=120)


def draw_roc(curve: tuple[Floats, Floats, Floats], path: Path) -> None:
    """Sensitivity against the share of benign lesions flagged; `curve` as scikit-learn's `roc_curve` gives it."""
    false_positives, true_positives, _ = curve
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    axis.plot(false_positives, true_positives)
    axis.plot([0, 1], [0, 1], linestyle=":", color="grey")
    axis.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC, test split")
    figure.savefig(path, dpi=120)


def draw_reliability(truth: npt.NDArray[np.bool_], probabilities: Floats, path: Path) -> None:
    """Share of malignant lesions in each bin of predicted probability."""
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    used = np.unique(bins)
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    axis.plot([probabilities[bins == one].mean() for one in used], [truth[bins == one].mean() for one in used], marker="o")
    axis.plot([0, 1], [0, 1], linestyle=":", color="grey")
    axis.set(xlabel="predicted probability", ylabel="share malignant", title="Reliability, test split")
    figure.savefig(path, dpi=120)


def draw_none_histograms(scores: Mapping[str, Floats], threshold: float, path: Path) -> None:
    """None scores of lesions and of other pictures, by name, with the threshold."""
    joined = np.concatenate(list(scores.values()))
    edges = np.linspace(joined.min(), joined.max(), 60)
    figure = Figure(figsize=(8, 4), layout="constrained")
    axis = figure.subplots()
    for (name, values), hatch in zip(scores.items(), ("", "//", ".."), strict=False):
        axis.hist(values, edges, density=True, alpha=0.6, label=f"{name}, n {len(values)}", hatch=hatch)
    axis.axvline(threshold, color="black", linestyle="--", label="threshold")
    axis.set(xlabel="none score", ylabel="density", title="None score, test split")
    axis.legend()
    figure.savefig(path, dpi=120)


def draw_risk_coverage(coverage: Floats, risk: Floats, path: Path) -> None:
    """Share of wrong answers if only so large a share of the lesions, the clearest, were answered."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    axis.plot(coverage, risk)
    axis.set(xlabel="share of lesions answered", ylabel="share of these answered wrongly", ylim=(0, None))
    axis.set_title("Risk and coverage, test split")
    figure.savefig(path, dpi=120)


def draw_maps(maps: Sequence[Floats], titles: Sequence[str], path: Path) -> None:
    """Activation maps [7, 7] alone: the terms of most pictures do not allow showing them."""
    most = max(np.abs(one).max() for one in maps)
    figure = Figure(figsize=(2.2 * len(maps), 2.8), layout="constrained")
    for axis, one, title in zip(np.atleast_1d(figure.subplots(1, len(maps))), maps, titles, strict=True):
        shown = axis.imshow(one, cmap="RdBu_r", vmin=-most, vmax=most)
        axis.set(title=title, xticks=[], yticks=[])
        axis.title.set_fontsize(9)
    figure.colorbar(shown, ax=figure.axes, label="share of the logit")
    figure.savefig(path, dpi=120)
