"""Scores the none score on what its fit never saw: each kind of picture left out in turn, and the lesions of each source."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from serving.metadata import Score
from training.calibrate import FEATURES_FILE, REJECTION_FILE, FittedTo, load_network, none_threshold
from training.config import TrainingConfig
from training.data import load_examples, load_pixels, select
from training.evaluate import PHOTO_KIND, SKIN_KINDS, Mask, ScoreTable, none_kind
from training.graph import batches_of, run_batches
from training.rejection import Features, Rejection, fit_method, fit_stages

LEFT_OUT_KIND = "none score without the kind,"
LEFT_OUT_SOURCE = "lesions rejected, their source left out"


def unseen(run: Path) -> list[Score]:
    """AUROC, AUPR and FPR@95 of kinds, and the share of rejected lesions of sources, that the none score is fitted without.

    The network has seen the lesions of every source; only the none score and its threshold are fitted again, with the method
    that the run chose. All pictures of a kind are new to it then, those of the training split too, and count; lesions are those
    of the test split.

    Args:
        run: a calibrated run.
    """
    config = TrainingConfig.load(run)
    examples = load_examples(Path(config.data), config.validation_share, config.seed)
    everything = select(examples, "test") + [example for example in examples if example.label == "none"]
    known = FittedTo.load(run / FEATURES_FILE)
    features = run_batches(load_network(run), batches_of(load_pixels(everything, run.parent / "cache")))
    chosen = Rejection.load(run / REJECTION_FILE)
    kind_of = np.array([none_kind(example) for example in everything])
    source_of = np.array([example.source for example in everything])
    table = ScoreTable([example.group for example in everything])
    for subset, kinds in _left_out_kinds(known.kinds):
        rejection = fit_method(chosen.method, chosen.stages, known.lesions, _rows(known.outliers, ~np.isin(known.kinds, kinds)))
        table.add_detection(LEFT_OUT_KIND, subset, kind_of == "", np.isin(kind_of, kinds), _scores(rejection, features))
    sources = np.unique(known.sources)
    for source in sources if len(sources) > 1 else ():
        without = dataclasses.replace(
            known,
            lesions=_rows(known.lesions, known.sources != source),
            val=_rows(known.val, known.val_sources != source),
            val_is_malignant=known.val_is_malignant[known.val_sources != source],
            val_sources=known.val_sources[known.val_sources != source],
        )
        rejection = fit_method(chosen.method, fit_stages(without.lesions), without.lesions, without.outliers)
        threshold = none_threshold(rejection, without)
        of_source = (kind_of == "") & (source_of == source)
        table.add_share(LEFT_OUT_SOURCE, source, of_source, _scores(rejection, features) >= threshold)
    return table.scores


def _left_out_kinds(kinds: npt.NDArray[np.str_]) -> Iterator[tuple[str, list[str]]]:
    """Each kind, then all but photographs; some kind must remain."""
    found = sorted(set(kinds))
    if len(found) < 2:
        return
    for kind in found:
        yield kind, [kind]
    skin = [kind for kind in found if kind != PHOTO_KIND]
    if 1 < len(skin) < len(found):
        yield f"any {SKIN_KINDS}", skin


def _rows(features: Features, chosen: Mask) -> Features:
    return {stage: rows[chosen] for stage, rows in features.items()}


def _scores(rejection: Rejection, features: Features) -> npt.NDArray[np.float64]:
    scores: npt.NDArray[np.float64] = rejection.score(features).numpy().astype(np.float64)
    return scores
