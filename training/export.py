"""Writes a version: network, calibration, none score and metadata in one graph, checked before it gets its number."""

import dataclasses
import datetime
import hashlib
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

from serving.contract import (
    ACTIVATION_MAP_OUTPUT,
    ALLOWED_BATCH_SIZES,
    CLASSES,
    EMBED_SIGNATURE,
    EMBEDDING_OUTPUT,
    IMAGE_SHAPE,
    IMAGES_INPUT,
    METADATA_OUTPUT,
    METADATA_SIGNATURE,
    MODEL_NAME,
    NONE_SCORE_OUTPUT,
    PREDICT_SIGNATURE,
    PROBABILITIES_OUTPUT,
    SCHEMA_VERSION,
    SCHEMA_VERSION_INPUT,
)
from serving.embedded.check import GOLDEN_FILE
from serving.embedded.servable import WARMUP_FILE
from serving.metadata import (
    Calibration,
    Estimate,
    ModelMetadata,
    OperatingPoint,
    Provenance,
    Score,
    Source,
    Thresholds,
)
from serving.release import EXTRA, METADATA_FILE, ReleaseError, publish
from training.calibrate import REJECTION_FILE, load_calibration, load_network
from training.config import TrainingConfig
from training.data import load_examples, select
from training.evaluate import evaluate, load_predict_fn, save_scores
from training.golden import paint_golden_pictures
from training.graph import NetworkWeights, run_network
from training.model import RUN_WEIGHTS
from training.rejection import Rejection
from training.robustness import DIHEDRAL, robustness
from training.unseen import unseen
from training.watch import golden_answer, reference

TERMS = {
    "ham10000_200x150": "CC BY-NC 4.0",
    "ham10000_224": "CC BY-NC 4.0",
    "isic2017_256": "CC0",
    "imagenet_samples": "research only",
    "skncure": "research only",
    "valenv_none": "research only",
}
"""Of the sources we know; another source is listed with terms `unknown`."""


ROBUSTNESS_FILE = "robustness.json"
"""In the run's folder: all figures of the changed lesions, of which the metadata carry the headlines."""

ROBUSTNESS_HEADLINES = (
    "label flips over",
    "lesions with any flip",
    "benign/malignant flips",
    "AUROC: ",
    "gain in AUROC",
)

MAX_MALIGNANT_TO_NONE = 0.02
"""Ceiling of the share that gets no class. Thresholds keep it on validation; on test it is told, for test chooses nothing."""


class ExportedModel(tf.Module):
    """The contract's three signatures over constants.

    A `tf.Module` and not the Keras object: TensorFlow Serving loads a Keras 3 SavedModel and then finds no variables in it.
    """

    def __init__(self, weights: NetworkWeights, calibration: Calibration, rejection: Rejection, metadata: str) -> None:
        super().__init__()
        self._weights = weights
        self._calibration = calibration
        self._rejection = rejection
        self._metadata = metadata

    @tf.function(input_signature=[tf.TensorSpec([None, *IMAGE_SHAPE], tf.uint8)])
    def _network(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """A function of its own, so that two signatures share one copy of the constants."""
        return dict(run_network(self._weights, images))

    @tf.function(input_signature=[tf.TensorSpec([None, *IMAGE_SHAPE], tf.uint8, IMAGES_INPUT)])
    def predict(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Uint8 [N, 224, 224, 3] -> probabilities [N, 2], none_score [N], activation_map [N, 7, 7]."""
        outputs = self._network(images)
        malignant = tf.sigmoid(self._calibration.slope * outputs["logit"] + self._calibration.intercept)
        return {
            PROBABILITIES_OUTPUT: tf.stack([1.0 - malignant, malignant], axis=1),
            NONE_SCORE_OUTPUT: self._rejection.score(outputs),
            ACTIVATION_MAP_OUTPUT: outputs["activation_map"],
        }

    @tf.function(input_signature=[tf.TensorSpec([None, *IMAGE_SHAPE], tf.uint8, IMAGES_INPUT)])
    def embed(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Uint8 [N, 224, 224, 3] -> embedding [N, 2048], the last stage's mean."""
        return {EMBEDDING_OUTPUT: self._network(images)["conv5"]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, SCHEMA_VERSION_INPUT)])
    def metadata(self, schema_version: tf.Tensor) -> dict[str, tf.Tensor]:
        """Int32 [N] -> the metadata document, N times: under batching every request of a batch gets its own."""
        return {METADATA_OUTPUT: tf.fill(tf.shape(schema_version), self._metadata)}


def export(run: Path, base: Path, version: int) -> Path:
    """Export a calibrated run as `base`/`version`.

    The graph is written under a name that no model server takes for a version, scored on the test split, shown the validation
    lesions and the golden picture, written again with its scores and answers, checked in a fresh process and published by one
    rename.

    Args:
        run: a finished and calibrated run.
        base: folder of the model's versions.
        version: the number; it must not exist yet.

    Returns:
        The published folder.

    Raises:
        serving.release.ReleaseError: the number is taken or the candidate is not valid.
        subprocess.CalledProcessError: the check in a fresh process failed; its output says why.
    """
    if (base / str(version)).exists():
        raise ReleaseError(f"{base / str(version)} exists; a version is never overwritten")
    weights, (calibration, thresholds) = load_network(run), load_calibration(run)
    rejection = Rejection.load(run / REJECTION_FILE)
    candidate = run / "export"
    data = Path(TrainingConfig.load(run).data)

    metadata = _metadata_without_scores(run, version, calibration, thresholds, rejection)
    _write(candidate, ExportedModel(weights, calibration, rejection, metadata.to_json()), metadata)
    predict, cache = load_predict_fn(candidate), run.parent / "cache"
    changes = robustness(predict, metadata, data, cache)
    save_scores(changes, run / ROBUSTNESS_FILE)
    scores = [*evaluate(predict, metadata, data, cache), *unseen(run), *_headlines(changes)]
    metadata = dataclasses.replace(
        metadata,
        scores=tuple(scores),
        operating_point=_operating_point(scores),
        reference=reference(predict, run),
        golden=golden_answer(predict),
    )
    _write(candidate, ExportedModel(weights, calibration, rejection, metadata.to_json()), metadata)
    golden = paint_golden_pictures()
    np.savez_compressed(candidate / GOLDEN_FILE, **{IMAGES_INPUT: golden}, **load_predict_fn(candidate)(golden))

    lost = next(score.estimate for score in scores if (score.metric, score.subset) == ("malignant lesions sent to none", "all"))
    if lost.value > MAX_MALIGNANT_TO_NONE:
        print(
            f"warning: {lost.value:.1%} of the malignant test lesions are sent to none, more than {MAX_MALIGNANT_TO_NONE:.0%}"
        )
    subprocess.run([sys.executable, "-m", "serving.embedded.check", candidate], check=True)  # noqa: S603  (our own module)
    return publish(candidate, base)


def _metadata_without_scores(
    run: Path, version: int, calibration: Calibration, thresholds: Thresholds, rejection: Rejection
) -> ModelMetadata:
    config = TrainingConfig.load(run)
    examples = load_examples(Path(config.data), config.validation_share, config.seed)
    counts = Counter(example.source for example in select(examples, "train", (*CLASSES, "none")))
    unknown = Estimate(0.0, 0.0, 1.0, 1)
    return ModelMetadata(
        schema_version=SCHEMA_VERSION,
        name=MODEL_NAME,
        version=version,
        classes=CLASSES,
        thresholds=thresholds,
        calibration=calibration,
        operating_point=OperatingPoint("none yet", unknown, unknown),
        none_score=rejection.method,
        scores=(),
        provenance=Provenance(
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            preset=config.name,
            config_sha256=hashlib.sha256(config.to_json().encode()).hexdigest(),
            initial_weights=initial_weights(config),
            sources=tuple(Source(name, TERMS.get(name, "unknown"), count) for name, count in sorted(counts.items())),
        ),
    )


def initial_weights(config: TrainingConfig) -> str:
    """Where the run began: a file's name, or for an earlier run its preset and where that one began."""
    if not config.weights.endswith(RUN_WEIGHTS):
        return Path(config.weights).name
    earlier = TrainingConfig.load(Path(config.weights).parent)
    return f"preset {earlier.name}, from {initial_weights(earlier)}"


def _headlines(changes: Sequence[Score]) -> list[Score]:
    """Flips and the gain of averaged views over all lesions; the single views of the dihedral group stand for each other."""
    return [
        score
        for score in changes
        if score.subset == "all"
        and score.metric.startswith(ROBUSTNESS_HEADLINES)
        and score.metric.partition(": ")[2] not in DIHEDRAL
    ]


def _operating_point(scores: Sequence[Score]) -> OperatingPoint:
    found = {score.metric: score.estimate for score in scores if score.subset == "all"}
    return OperatingPoint("test", found["sensitivity"], found["specificity"])


def _write(folder: Path, model: ExportedModel, metadata: ModelMetadata) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    signatures = {PREDICT_SIGNATURE: model.predict, EMBED_SIGNATURE: model.embed, METADATA_SIGNATURE: model.metadata}
    tf.saved_model.save(model, str(folder), signatures=signatures)
    (folder / EXTRA).mkdir()
    (folder / EXTRA / METADATA_FILE).write_text(metadata.to_json())
    with tf.io.TFRecordWriter(str(folder / WARMUP_FILE)) as writer:
        for batch_size in ALLOWED_BATCH_SIZES:
            writer.write(_warmup_record(batch_size).SerializeToString())


def _warmup_record(batch_size: int) -> prediction_log_pb2.PredictionLog:
    """A batch of grey pictures; one value stands for all elements, so the record has a few bytes instead of megabytes."""
    shape = tf.TensorShape([batch_size, *IMAGE_SHAPE]).as_proto()
    images = tensor_pb2.TensorProto(dtype=types_pb2.DT_UINT8, tensor_shape=shape, int_val=[127])
    request = predict_pb2.PredictRequest(
        model_spec=model_pb2.ModelSpec(name=MODEL_NAME, signature_name=PREDICT_SIGNATURE), inputs={IMAGES_INPUT: images}
    )
    return prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
