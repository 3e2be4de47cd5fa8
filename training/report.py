"""Renders what a version says of itself: the model card from its metadata, figures from its predictions."""

import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from serving.contract import ACTIVATION_MAP_OUTPUT
from serving.metadata import Estimate, ModelMetadata, Score
from training.calibrate import LEFT_OUT_FILE
from training.data import binary_labels, load_examples, load_pixels, select
from training.evaluate import (
    PHOTO_KIND,
    SKIN_KINDS,
    PredictFn,
    distance_from_threshold,
    load_metadata,
    load_scores,
    none_kind,
    predict_all,
)
from training.export import ROBUSTNESS_FILE, ROBUSTNESS_HEADLINES
from training.figures import draw_maps, draw_none_histograms, draw_reliability, draw_risk_coverage, draw_roc
from training.parity import format_parity, parity
from training.rejection import METHODS
from training.statistics import risk_coverage
from training.unseen import LEFT_OUT_KIND, LEFT_OUT_SOURCE

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
flagged. What an answer is worth depends on how common malignant lesions are among those examined: see the scores.

{watch}## Scores on the {split} split

Of the exported graph. Pictures of one lesion share a group; no group stands in two splits, and intervals (95 %) resample
groups.
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


WATCH = """## Watched in use

The metadata hold what this version answered to the {n} lesions of the {split} split, as histograms, and to a painted lesion
(probability {malignant:.4f}, none score {none_score:.2f}). A gateway compares with them what it answers: `docs/monitoring.md`.

| probability over | up to | lesions | none score over | up to | lesions |
|---|---|---|---|---|---|
{bins}

"""

COMPARISON = """# None scores compared

Rendered by `python -m training report`; `python -m training calibrate --run RUN` prints the figures. Do not edit.

Each kind of other picture is left out in turn: a score that is fitted to such pictures is fitted to the other kinds. Its
training pictures (each as it is and as augmented copies) are then told from the lesions of the validation split. The test
split takes no part. What is shipped is the best of ours by mean AUROC; those marked * see no such picture at all and work on
the last stage alone (`training/none_scores.py`; `make oodeel` checks their formulas against another library).

| score | mean AUROC | mean FPR@95 |
|---|---|---|
{means}

FPR@95 is the share of other pictures that pass where 95 % of the lesions pass; n counts the other pictures.

| score | kind left out | AUROC | AUPR | FPR@95 | n |
|---|---|---|---|---|---|
{rows}
"""

ROBUSTNESS = """# The same lesion, changed

Rendered by `python -m training report`; `python -m training robustness --model {folder} --data CSV`
prints the figures. Do not edit.

The test split's lesions once more: turned and mirrored, coded as JPEG, blurred, lighter and darker, and as the other capture of
the same HAM10000 picture. `class flips` counts every change of the answer, `benign/malignant flips` those from one class to the
other. The averaged views show what an answer from several views would gain, at as many times the cost.

| metric | subset | value | 95 % interval | n |
|---|---|---|---|---|
{rows}
"""

FIGURES = {
    "roc.png": "ROC curve of the test split",
    "reliability.png": "Reliability diagram of the test split",
    "risk-coverage.png": "Share of wrong answers against the share of lesions answered",
    "none-score.png": "None score of lesions, photographs and other skin",
    "maps.png": "Activation maps of the first malignant and benign lesions of the test split, without the pictures",
    "curves.png": "Accuracy and loss of the training run",
}

SECTIONS = {
    "Other pictures": ("evaluate --model {folder} --data CSV", ("none score AU", "none score FPR", "non-lesions")),
    "What the none score's fit never saw": ("unseen --run RUN", (LEFT_OUT_KIND, LEFT_OUT_SOURCE)),
    "The same lesion, changed": ("robustness --model {folder} --data CSV", ROBUSTNESS_HEADLINES),
    "Lesions": ("evaluate --model {folder} --data CSV", ("",)),
}
"""Heading -> command that prints its scores, and how their names begin. The last takes the rest."""

MAPS_A_CLASS = 3


def report(version: Path, predict: PredictFn, data: Path, cache: Path, docs: Path, run: Path | None = None) -> None:
    """Write `docs`/model-card.md, its figures and, of a run, `docs`/none-scores.md and `docs`/robustness.md.

    Args:
        version: folder of the published version.
        predict: its predict signature.
        data: as in `training.data.load_examples`; the test split is drawn.
        cache: folder for decoded pictures.
        docs: folder of the documents.
        run: its training run, for the curves, the comparison of none scores and the comparison with float32.
    """
    metadata = load_metadata(version)
    figures = docs / "figures"
    figures.mkdir(exist_ok=True)
    _draw(metadata, predict, data, cache, figures)
    parts = [render_card(metadata, version)]
    if run:
        shutil.copy(run / "curves.png", figures / "curves.png")
        (docs / "none-scores.md").write_text(render_comparison(json.loads((run / LEFT_OUT_FILE).read_text())))
        (docs / "robustness.md").write_text(
            ROBUSTNESS.format(folder=version, rows=_score_rows(load_scores(run / ROBUSTNESS_FILE)))
        )
        comparison = format_parity(parity(run, version, data, cache))
        command = f"`python -m training parity --run RUN --model {version} --data CSV` prints this."
        parts += ["## The exported graph against float32\n", command, f"\n```\n{comparison}\n```\n"]
    links = [f"![{text}](figures/{name})" for name, text in FIGURES.items() if (figures / name).exists()]
    (docs / "model-card.md").write_text("\n".join([*parts, "## Figures\n", *links, ""]))


def _draw(metadata: ModelMetadata, predict: PredictFn, data: Path, cache: Path, figures: Path) -> None:
    examples = select(load_examples(data), "test", ("benign", "malignant", "none"))
    pixels = load_pixels(examples, cache)
    malignant, none_score = predict_all(predict, pixels)
    kinds = np.array([none_kind(example) for example in examples])
    is_lesion = kinds == ""
    truth = binary_labels(examples).astype(bool)
    draw_roc(roc_curve(truth[is_lesion], malignant[is_lesion]), figures / "roc.png")
    draw_reliability(truth[is_lesion], malignant[is_lesion], figures / "reliability.png")
    wrong = (malignant >= metadata.thresholds.malignant) != truth
    clarity = distance_from_threshold(malignant, metadata.thresholds)
    draw_risk_coverage(*risk_coverage(wrong[is_lesion], clarity[is_lesion]), figures / "risk-coverage.png")
    groups = {"lesions": is_lesion, "photographs": kinds == PHOTO_KIND, "other skin": ~is_lesion & (kinds != PHOTO_KIND)}
    if not is_lesion.all():
        scores = {name: none_score[rows] for name, rows in groups.items() if rows.any()}
        draw_none_histograms(scores, metadata.thresholds.none, figures / "none-score.png")
    first = np.concatenate([np.flatnonzero(is_lesion & (truth == one))[:MAPS_A_CLASS] for one in (True, False)])
    maps = predict(np.asarray(pixels[first]))[ACTIVATION_MAP_OUTPUT]
    titles = [f"{examples[row].label}\nprobability {malignant[row]:.2f}" for row in first]
    draw_maps(list(maps), titles, figures / "maps.png")


def render_comparison(left_out: Sequence[Mapping[str, Any]]) -> str:
    """The none scores that were compared, as Markdown: the best first."""
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for result in left_out:
        by_method.setdefault(result["method"], []).append(result)
    ranked = sorted(by_method.items(), key=lambda item: -np.mean([result["auroc"] for result in item[1]]))
    rows = [
        f"| {method}{'' if method in METHODS else ' *'} | {result['kind']} | {result['auroc']:.4f} | {result['aupr']:.4f} "
        f"| {result['false_positive_rate']:.3f} | {result['n']} |"
        for method, results in ranked
        for result in results
    ]
    means = [
        f"| {method}{'' if method in METHODS else ' *'} | {np.mean([result['auroc'] for result in results]):.4f} "
        f"| {np.mean([result['false_positive_rate'] for result in results]):.3f} |"
        for method, results in ranked
    ]
    return COMPARISON.format(means="\n".join(means), rows="\n".join(rows))


def render_card(metadata: ModelMetadata, folder: Path) -> str:
    """The model card as Markdown, from metadata alone, without its figures."""
    thresholds, provenance, point = metadata.thresholds, metadata.provenance, metadata.operating_point
    kinds = {score.subset for score in metadata.scores if score.metric == "non-lesions accepted"} - {SKIN_KINDS}
    is_ham = any(source.name.startswith("ham10000") for source in provenance.sources)
    return CARD.format(
        name=metadata.name,
        version=metadata.version,
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
        scores=_score_tables(metadata.scores, folder),
        watch=_watch(metadata),
    )


def _watch(metadata: ModelMetadata) -> str:
    """Versions before 3 have nothing to say here."""
    if metadata.reference is None or metadata.golden is None:
        return ""
    columns = [
        (edges[:-1], edges[1:], histogram.counts)
        for histogram in (metadata.reference.malignant, metadata.reference.none_score)
        for edges in [["", *(f"{edge:g}" for edge in histogram.edges), ""]]
    ]
    cells = [column for three in columns for column in three]
    return WATCH.format(
        n=sum(metadata.reference.malignant.counts),
        split=metadata.reference.split,
        malignant=metadata.golden.malignant,
        none_score=metadata.golden.none_score,
        bins="\n".join(f"| {' | '.join(map(str, row))} |" for row in itertools.zip_longest(*cells, fillvalue="")),
    )


def _score_tables(scores: Sequence[Score], folder: Path) -> str:
    rest = list(scores)
    parts = []
    for title, (command, starts) in SECTIONS.items():
        rows = [score for score in rest if score.metric.startswith(starts)]
        rest = [score for score in rest if score not in rows]
        if rows:
            parts += ["", f"### {title}", "", f"`python -m training {command.format(folder=folder)}` prints these.", ""]
            parts += ["| metric | subset | value | 95 % interval | n |", "|---|---|---|---|---|", _score_rows(rows)]
    return "\n".join(parts)


def _score_rows(scores: Sequence[Score]) -> str:
    return "\n".join(
        f"| {score.metric} | {score.subset} | {score.estimate.value:.4f} "
        f"| {score.estimate.low:.4f} to {score.estimate.high:.4f} | {score.estimate.n} |"
        for score in scores
    )


def _with_interval(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f}, n {estimate.n})"
