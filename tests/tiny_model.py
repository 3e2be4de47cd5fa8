"""A model with the whole contract and no learning: colours decide, so that a test can paint the answer it wants.

Probability of malignant = mean red / 255, none score = mean blue / 25.5, activation map = mean green of each cell.
`python -m tests.tiny_model BASE VERSION [THRESHOLD]` writes BASE/VERSION; a process of its own, for TensorFlow's sake.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import tensorflow as tf

from serving.contract import (
    ACTIVATION_MAP_OUTPUT,
    EMBED_SIGNATURE,
    EMBEDDING_OUTPUT,
    IMAGE_SHAPE,
    IMAGES_INPUT,
    MAP_SIZE,
    METADATA_OUTPUT,
    METADATA_SIGNATURE,
    NONE_SCORE_OUTPUT,
    PREDICT_SIGNATURE,
    PROBABILITIES_OUTPUT,
    SCHEMA_VERSION_INPUT,
)
from serving.metadata import ModelMetadata
from serving.release import EXTRA, METADATA_FILE, publish
from tests.metadata import METADATA


class TinyModel(tf.Module):
    """Three signatures over four operations."""

    def __init__(self, metadata: ModelMetadata) -> None:
        super().__init__()
        self._metadata = metadata.to_json()

    @tf.function(input_signature=[tf.TensorSpec([None, *IMAGE_SHAPE], tf.uint8, IMAGES_INPUT)])
    def predict(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.cast(tf.ensure_shape(images, [None, *IMAGE_SHAPE]), tf.float32)
        red, green, blue = tf.unstack(pixels, axis=3)
        malignant = tf.reduce_mean(red, axis=[1, 2]) / 255.0
        cells = tf.reshape(green, [-1, MAP_SIZE, IMAGE_SHAPE[0] // MAP_SIZE, MAP_SIZE, IMAGE_SHAPE[1] // MAP_SIZE])
        return {
            PROBABILITIES_OUTPUT: tf.stack([1.0 - malignant, malignant], axis=1),
            NONE_SCORE_OUTPUT: tf.reduce_mean(blue, axis=[1, 2]) / 25.5,
            ACTIVATION_MAP_OUTPUT: tf.reduce_mean(cells, axis=[2, 4]),
        }

    @tf.function(input_signature=[tf.TensorSpec([None, *IMAGE_SHAPE], tf.uint8, IMAGES_INPUT)])
    def embed(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            EMBEDDING_OUTPUT: tf.reduce_mean(tf.cast(tf.ensure_shape(images, [None, *IMAGE_SHAPE]), tf.float32), axis=[1, 2])
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, SCHEMA_VERSION_INPUT)])
    def metadata(self, schema_version: tf.Tensor) -> dict[str, tf.Tensor]:
        return {METADATA_OUTPUT: tf.fill(tf.shape(schema_version), self._metadata)}


def save_tiny_model(base: Path, version: int, malignant_threshold: float = 0.4) -> Path:
    """Write a version as an export would: with its readable metadata and checksums."""
    thresholds = dataclasses.replace(
        METADATA.thresholds,
        malignant=malignant_threshold,
        uncertain_low=malignant_threshold - 0.04,
        uncertain_high=malignant_threshold + 0.04,
    )
    metadata = dataclasses.replace(METADATA, version=version, thresholds=thresholds)
    model = TinyModel(metadata)
    signatures = {PREDICT_SIGNATURE: model.predict, EMBED_SIGNATURE: model.embed, METADATA_SIGNATURE: model.metadata}
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(model, folder, signatures=signatures)
        (Path(folder) / EXTRA).mkdir()
        (Path(folder) / EXTRA / METADATA_FILE).write_text(metadata.to_json())
        return publish(Path(folder), base)


if __name__ == "__main__":
    save_tiny_model(Path(sys.argv[1]), int(sys.argv[2]), *(float(argument) for argument in sys.argv[3:]))
