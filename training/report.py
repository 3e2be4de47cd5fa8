"""Renders what a version says of itself: the model card from its metadata, figures from its predictions."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_curve

from serving.metadata import Estimate, ModelMetadata, Score
from training.data import binary_labels, load_examples, load_pixels, select
from training.evaluate import SKIN_KINDS, PredictFn, predict_all
from training.figures import draw_none_histograms, draw_reliability, draw_roc

CARD = """# Model card: {name}, version {version}

Rendered from the version's own metadata by `python -m training report`; do not edit.

**What it is.** A ResNet-50 that gives a dermoscopic picture of a skin lesion a calibrated probability of being malignant, and a
score of how far the picture lies from such pictures. Made for research and demonstration. **It is not a medical device and its
answer is not a diagnosis.**

**What it must not be used for.** To decide that somebody needs no doctor; on pictures that are not dermoscopic; commercially
(see the terms below).

## Data and terms

Initial weights: `{initial_weights}`. Preset `{preset}`, configuration sha256 `{config_sha256}`, exported {created}.
None score: {none_score}.

| source | terms | training pictures |
|---|---|---|
{sources}

## Decision

| threshold | value |
|---|---|
| malignant from a probability of | {malignant:.4f} |
| uncertain between | {uncertain_low:.4f} and {uncertain_high:.4f} |
| out of scope from a none score of | {none:.4f} |
| uncertain instead of out of scope from a probability of | {guard:.4f} |

Chosen on the validation split: 95 % of its malignant lesions have at least that probability. On the {split} split, which chose
nothing, the tool flags {sensitivity} of the malignant lesions (sensitivity) and does
not flag {specificity} of the benign ones (specificity); a lesion that it sends to none is not
flagged. What a flag is worth depends on how common malignant lesions are among those examined:

| malignant among those examined | of 100 flagged, malignant | of 100 not flagged, malignant |
|---|---|---|
{predictive_values}

## Scores on the {split} split

`python -m training evaluate --model {folder} --data CSV` prints them. Pictures of one lesion share
a group; no group stands in two splits, and intervals (95 %) resample groups.

| metric | subset | value | 95 % interval | n |
|---|---|---|---|---|
{scores}

## Limits

- Skin tone, age and sex of the people are not known to the model and mostly not recorded in the data; how well it does on dark
  skin is **unknown**.{origin}
- Dermoscopic pictures of pigmented lesions only. Rare tumours (such as Merkel cell carcinoma) were seen hardly or never.
- Other cameras and hospitals: published models of this kind lose .05 to .15 of AUROC outside their data; this one was
  tested on the sources above only.
- {other_kinds} A kind it has never seen may pass as a lesion.
- Actinic keratosis (`premalignant`) is in neither class: it is left out of training and, where there is any, reported apart.
- The network sees 224 by 224 pixels: finer detail was never used.
"""


FIGURES = {
    "roc.png": "ROC curve of the test split",
    "reliability.png": "Reliability diagram of the test split",
    "none-score.png": "None score of lesions and of other pictures",
    "curves.png": "Accuracy and loss of the training run",
}


def report(version: Path, predict: PredictFn, data: Path, cache: Path, docs: Path, run: Path | None = None) -> None:
    """Write `docs`/model-card.md and its figures.

    Args:
        version: folder of the published version.
        predict: its predict signature.
        data: as in `training.data.load_examples`; the test split is drawn.
        cache: folder for decoded pictures.
        docs: folder of the documents.
        run: its training run, for the curves.
    """
    metadata = ModelMetadata.from_json((version / "assets.extra" / "metadata.json").read_text())
    examples = select(load_examples(data), "test", ("benign", "malignant", "none"))
    malignant, none_score = predict_all(predict, load_pixels(examples, cache))
    is_none = np.array([example.label == "none" for example in examples])
    truth = binary_labels(examples).astype(bool)[~is_none]
    figures = docs / "figures"
    figures.mkdir(exist_ok=True)
    draw_roc(roc_curve(truth, malignant[~is_none]), figures / "roc.png")
    draw_reliability(truth, malignant[~is_none], figures / "reliability.png")
    if is_none.any():
        draw_none_histograms(none_score[~is_none], none_score[is_none], metadata.thresholds.none, figures / "none-score.png")
    if run:
        shutil.copy(run / "curves.png", figures / "curves.png")
    links = [f"![{text}](figures/{name})" for name, text in FIGURES.items() if (figures / name).exists()]
    (docs / "model-card.md").write_text("\n".join([render_card(metadata, version), "## Figures\n", *links, ""]))


def render_card(metadata: ModelMetadata, folder: Path) -> str:
    """The model card as Markdown, from metadata alone, without its figures."""
    thresholds, provenance, point = metadata.thresholds, metadata.provenance, metadata.operating_point
    kinds = {score.subset for score in metadata.scores if score.metric == "non-lesions accepted"} - {SKIN_KINDS}
    is_ham = any(source.name.startswith("ham10000") for source in provenance.sources)
    return CARD.format(
        name=metadata.name,
        version=metadata.version,
        folder=folder,
        none_score=metadata.none_score,
        origin=" HAM10000 comes from Austria and Australia." if is_ham else "",
        other_kinds=f"The none score was fitted with a few hundred pictures of {len(kinds)} kinds."
        if kinds
        else "The none score was fitted without pictures of anything else.",
        initial_weights=provenance.initial_weights,
        preset=provenance.preset,
        config_sha256=provenance.config_sha256,
        created=provenance.created,
        sources="\n".join(f"| {source.name} | {source.terms} | {source.n} |" for source in provenance.sources),
        malignant=thresholds.malignant,
        uncertain_low=thresholds.uncertain_low,
        uncertain_high=thresholds.uncertain_high,
        none=thresholds.none,
        guard=thresholds.guard,
        split=point.split,
        sensitivity=_with_interval(point.sensitivity),
        specificity=_with_interval(point.specificity),
        predictive_values="\n".join(
            f"| {prevalence:.0%} | {_flagged(point.sensitivity.value, point.specificity.value, prevalence):.1f} "
            f"| {_not_flagged(point.sensitivity.value, point.specificity.value, prevalence):.1f} |"
            for prevalence in (0.02, 0.07, 0.2, 0.5)
        ),
        scores=_score_rows(metadata.scores),
    )


def _score_rows(scores: Sequence[Score]) -> str:
    return "\n".join(
        f"| {score.metric} | {score.subset} | {score.estimate.value:.4f} "
        f"| {score.estimate.low:.4f} to {score.estimate.high:.4f} | {score.estimate.n} |"
        for score in scores
    )


def _with_interval(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f}, n {estimate.n})"


def _flagged(sensitivity: float, specificity: float, prevalence: float) -> float:
    """Positive predictive value in percent, by Bayes."""
    true, false = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    return 100 * true / (true + false)


def _not_flagged(sensitivity: float, specificity: float, prevalence: float) -> float:
    """Percent of malignant lesions among those not flagged."""
    missed, right = (1 - sensitivity) * prevalence, specificity * (1 - prevalence)
    return 100 * missed / (missed + right)
