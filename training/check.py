"""`python -m training.check FOLDER`: an exported version, loaded in a process that did not make it, keeps the contract.

What the exporting process can do with its own objects proves nothing: a Keras 3 SavedModel predicts there and nowhere else.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from serving.contract import (
    ACTIVATION_MAP_OUTPUT,
    CLASSES,
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
    SCHEMA_VERSION,
    SCHEMA_VERSION_INPUT,
)
from serving.metadata import ModelMetadata


class ContractError(Exception):
    """The exported graph does not keep the contract."""


def check(folder: Path) -> None:
    """Load a version and try its signatures.

    Raises:
        ContractError: what differs.
    """
    signatures = tf.saved_model.load(str(folder)).signatures
    document = signatures[METADATA_SIGNATURE](**{SCHEMA_VERSION_INPUT: tf.constant([SCHEMA_VERSION, SCHEMA_VERSION])})
    texts = document[METADATA_OUTPUT].numpy()
    metadata = ModelMetadata.from_json(texts[1])
    _require(len(texts) == 2, "the metadata signature gives one document for a batch of two")
    readable = ModelMetadata.from_json((folder / "assets.extra" / "metadata.json").read_text())
    _require(metadata == readable, "assets.extra/metadata.json differs from the document in the graph")

    images = np.random.default_rng(1).integers(0, 256, (3, *IMAGE_SHAPE), dtype=np.uint8)
    outputs = {name: value.numpy() for name, value in signatures[PREDICT_SIGNATURE](**{IMAGES_INPUT: images}).items()}
    shapes = {
        PROBABILITIES_OUTPUT: (3, len(CLASSES)),
        NONE_SCORE_OUTPUT: (3,),
        ACTIVATION_MAP_OUTPUT: (3, MAP_SIZE, MAP_SIZE),
    }
    _require({name: value.shape for name, value in outputs.items()} == shapes, "the predict signature has other outputs")
    _require(all(np.isfinite(value).all() for value in outputs.values()), "an output is not finite")
    _require(np.allclose(outputs[PROBABILITIES_OUTPUT].sum(axis=1), 1.0, atol=1e-5), "probabilities do not sum to one")
    logits = outputs[ACTIVATION_MAP_OUTPUT].mean(axis=(1, 2))
    platt = metadata.calibration
    expected = 1 / (1 + np.exp(-(platt.slope * logits + platt.intercept)))
    _require(
        np.allclose(outputs[PROBABILITIES_OUTPUT][:, 1], expected, atol=1e-4), "the activation map does not give the logit"
    )
    embedding = signatures[EMBED_SIGNATURE](**{IMAGES_INPUT: images})[EMBEDDING_OUTPUT]
    _require(embedding.shape == (3, 2048), "the embed signature gives another shape")
    for shape in ((1, 128, 128, 3), IMAGE_SHAPE):
        _require(_is_refused(signatures[PREDICT_SIGNATURE], shape), f"a request of shape {shape} is answered")


def _is_refused(signature: tf.types.experimental.ConcreteFunction, shape: tuple[int, ...]) -> bool:
    try:
        signature(**{IMAGES_INPUT: tf.zeros(shape, tf.uint8)})
    except (tf.errors.InvalidArgumentError, ValueError, TypeError):
        return True
    return False


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise ContractError(reason)


if __name__ == "__main__":
    check(Path(sys.argv[1]))
    print(f"{sys.argv[1]} keeps the contract")
