"""The exported graph against the float32 network it was made from: what folding, bfloat16 and the export cost."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy.special import logit

from serving.contract import ACTIVATION_MAP_OUTPUT, NONE_SCORE_OUTPUT, PROBABILITIES_OUTPUT
from serving.metadata import Estimate
from training.calibrate import apply_platt, load_classifier
from training.data import binary_labels, load_examples, load_pixels, select
from training.evaluate import PredictFn, load_metadata, load_predict_fn
from training.graph import batches_of
from training.model import LOGIT_LAYER
from training.robustness import answer
from training.statistics import auroc, bootstrap, bootstrap_share

SURE = 0.999
"""Nearer to one, a float32 probability no longer tells its logit to four digits."""


@dataclasses.dataclass(frozen=True)
class Parity:
    """What differs between a version and its float32 network on the lesions of a split.

    Attributes:
        mean_difference, quantile_difference, max_difference: of the calibrated probabilities; the quantile is that of 99 %.
        changed: pictures whose label differs at the version's thresholds, with the version's none score for both.
        changed_share: of all pictures.
        map_error, float32_map_error: largest gap between the mean of an activation map and the logit. The version's logit is
            Platt's map of its probability inverted, below a probability of `SURE`.
        version_mb, float32_mb: the version's folder, and the float32 network's weights alone, in 10^6 bytes.
    """

    mean_difference: float
    quantile_difference: float
    max_difference: float
    changed: int
    changed_share: Estimate
    auroc: Estimate
    float32_auroc: Estimate
    map_error: float
    float32_map_error: float
    version_mb: float
    float32_mb: float


def parity(run: Path, version: Path, data: Path, cache: Path, split: str = "test") -> Parity:
    """Ask both for every lesion of a split.

    Args:
        run: the finished run that the version was exported from.
        version: folder of the version.
        data: as in `training.data.load_examples`.
        cache: folder for decoded pictures.
        split: `test`, as long as nothing is chosen by it.
    """
    metadata = load_metadata(version)
    platt = metadata.calibration
    examples = select(load_examples(data), split)
    truth, groups = binary_labels(examples).astype(bool), [example.group for example in examples]
    classifier = load_classifier(run)
    batches = _ask_both(load_predict_fn(version), classifier, load_pixels(examples, cache))
    columns = (np.concatenate(column).astype(np.float64) for column in zip(*batches, strict=True))
    exported, none_score, map_mean, float32_logit, float32_map_mean = columns

    float32 = apply_platt(platt, float32_logit)
    difference = np.abs(exported - float32)
    labels, float32_labels = (answer(malignant, none_score, metadata.thresholds).labels for malignant in (exported, float32))
    is_invertible = exported < SURE
    log_odds = logit(exported[is_invertible])
    return Parity(
        mean_difference=float(difference.mean()),
        quantile_difference=float(np.quantile(difference, 0.99)),
        max_difference=float(difference.max()),
        changed=int((labels != float32_labels).sum()),
        changed_share=bootstrap_share(labels != float32_labels, groups),
        auroc=bootstrap(auroc(truth, exported), groups),
        float32_auroc=bootstrap(auroc(truth, float32), groups),
        map_error=float(np.abs(map_mean[is_invertible] - (log_odds - platt.intercept) / platt.slope).max()),
        float32_map_error=float(np.abs(float32_map_mean - float32_logit).max()),
        version_mb=sum(path.stat().st_size for path in version.rglob("*") if path.is_file()) / 1e6,
        float32_mb=4 * classifier.count_params() / 1e6,
    )


def _ask_both(
    predict: PredictFn, classifier: keras.Model, pixels: npt.NDArray[np.uint8]
) -> Iterator[tuple[npt.NDArray[np.float32], ...]]:
    """For each batch: the version's malignant probability, none score and map's mean, the network's logit and map's mean."""
    head = classifier.get_layer(LOGIT_LAYER)
    network = keras.Model(classifier.inputs, [classifier.output, classifier.get_layer("embedding").input])

    @tf.function(input_signature=[tf.TensorSpec([None, *pixels.shape[1:]], tf.uint8)])
    def ask_network(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        output, features = network(tf.cast(images, tf.float32), training=False)
        return output[:, 0], tf.reduce_mean(tf.tensordot(features, head.kernel, axes=1) + head.bias, axis=[1, 2, 3])

    for batch in batches_of(pixels):
        outputs, (network_logit, map_mean) = predict(batch), ask_network(tf.constant(batch))
        yield (
            outputs[PROBABILITIES_OUTPUT][:, 1],
            outputs[NONE_SCORE_OUTPUT],
            outputs[ACTIVATION_MAP_OUTPUT].mean(axis=(1, 2)),
            network_logit.numpy(),
            map_mean.numpy(),
        )


def format_parity(result: Parity) -> str:
    """A table for people."""
    share, exported, float32 = result.changed_share, result.auroc, result.float32_auroc
    rows = {
        "probability, mean difference": f"{result.mean_difference:.5f}",
        "probability, 99 % of differences below": f"{result.quantile_difference:.5f}",
        "probability, largest difference": f"{result.max_difference:.5f}",
        "labels changed": f"{result.changed} of {share.n}: {share.value:.4f}  [{share.low:.4f}, {share.high:.4f}]",
        "AUROC, version": f"{exported.value:.4f}  [{exported.low:.4f}, {exported.high:.4f}]",
        "AUROC, float32 network": f"{float32.value:.4f}  [{float32.low:.4f}, {float32.high:.4f}]",
        "map against logit, version": f"{result.map_error:.1e}",
        "map against logit, float32 network": f"{result.float32_map_error:.1e}",
        "size, version": f"{result.version_mb:.1f} MB",
        "size, float32 weights": f"{result.float32_mb:.1f} MB",
    }
    return "\n".join(f"{name:40} {value}" for name, value in rows.items())
