"""The network as TensorFlow operations over fixed weights: what is exported, and what calibration and evaluation run.

Weights are stored in bfloat16 and convolutions run in it; normalisation, pooling, the head and everything after it are float32.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypedDict

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from serving.contract import IMAGE_SHAPE
from training.model import LOGIT_LAYER, STAGES, backbone_of, fold

BATCH_SIZE = 32

Floats = npt.NDArray[np.float32]


class NetworkOutputs(TypedDict):
    """What one pass over N pictures gives.

    Attributes:
        logit: [N], malignant against benign, before calibration.
        activation_map: [N, 7, 7], each place's share of the logit: its mean is the logit.
        conv2, conv3, conv4, conv5: [N, 256], [N, 512], [N, 1024], [N, 2048], mean over space of each stage's output.
            conv5 is the embedding.
    """

    logit: tf.Tensor
    activation_map: tf.Tensor
    conv2: tf.Tensor
    conv3: tf.Tensor
    conv4: tf.Tensor
    conv5: tf.Tensor


class NetworkWeights:
    """Folded weights of a trained classifier, by layer name."""

    def __init__(self, classifier: keras.Model) -> None:
        normalisation = classifier.get_layer("normalisation")
        self.scale = np.array(normalisation.scale, np.float32)
        self.offset = np.array(normalisation.offset, np.float32)
        self.convolutions: Mapping[str, list[Floats]] = {
            layer.name: layer.get_weights()
            for layer in fold(backbone_of(classifier)).layers
            if isinstance(layer, keras.layers.Conv2D)
        }
        kernel, bias = classifier.get_layer(LOGIT_LAYER).get_weights()
        self.head_kernel = kernel[:, 0]
        self.head_bias = bias[0]


def run_network(weights: NetworkWeights, images: tf.Tensor) -> NetworkOutputs:
    """Trace the whole pass.

    Args:
        weights: of the trained classifier; they become constants, so that the runtime can lay them out for the machine once.
        images: uint8 [N, 224, 224, 3]. Another shape is an INVALID_ARGUMENT: without the check global pooling would hide it.
    """
    # The batch of a request is unknown, everything else is not.
    images = tf.ensure_shape(images, [None, *IMAGE_SHAPE])
    normalised = tf.cast(images, tf.float32) * weights.scale + weights.offset
    x = tf.cast(tf.pad(normalised, [[0, 0], [3, 3], [3, 3], [0, 0]]), tf.bfloat16)
    x = tf.nn.relu(_convolve(weights, x, "conv1_conv", stride=2))
    x = tf.nn.max_pool2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID")
    pooled = {}
    for stage, (_, blocks, stride) in STAGES.items():
        for block in range(1, blocks + 1):
            x = _residual_block(weights, x, f"{stage}_block{block}", stride if block == 1 else 1, has_projection=block == 1)
        pooled[stage] = tf.reduce_mean(tf.cast(x, tf.float32), axis=[1, 2])
    activation_map = tf.tensordot(tf.cast(x, tf.float32), weights.head_kernel, axes=1) + weights.head_bias
    logit = tf.linalg.matvec(pooled["conv5"], weights.head_kernel) + weights.head_bias
    return NetworkOutputs(logit=logit, activation_map=activation_map, **pooled)


def _convolve(weights: NetworkWeights, x: tf.Tensor, name: str, stride: int = 1, padding: str = "VALID") -> tf.Tensor:
    kernel, bias = (tf.constant(value, tf.bfloat16) for value in weights.convolutions[name])
    return tf.nn.bias_add(tf.nn.conv2d(x, kernel, stride, padding), bias)


def _residual_block(weights: NetworkWeights, x: tf.Tensor, name: str, stride: int, has_projection: bool) -> tf.Tensor:
    shortcut = _convolve(weights, x, f"{name}_0_conv", stride) if has_projection else x
    x = tf.nn.relu(_convolve(weights, x, f"{name}_1_conv", stride))
    x = tf.nn.relu(_convolve(weights, x, f"{name}_2_conv", padding="SAME"))
    return tf.nn.relu(tf.add(_convolve(weights, x, f"{name}_3_conv"), shortcut))


def run_batches(weights: NetworkWeights, batches: Iterable[npt.NDArray[np.uint8]]) -> dict[str, Floats]:
    """All outputs but the maps over many batches of pictures, joined."""
    signature = [tf.TensorSpec([None, *IMAGE_SHAPE], tf.uint8)]
    network = tf.function(lambda images: run_network(weights, images), input_signature=signature)
    rows: dict[str, list[Floats]] = {}
    for batch in batches:
        for name, value in network(tf.constant(batch)).items():
            if name != "activation_map":
                rows.setdefault(name, []).append(value.numpy())
    return {name: np.concatenate(values) for name, values in rows.items()}


def batches_of(pixels: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
    """Batches of many pictures [N, 224, 224, 3], with a progress bar."""
    progress = keras.utils.Progbar(len(pixels), unit_name="picture")
    for start in range(0, len(pixels), BATCH_SIZE):
        batch = np.asarray(pixels[start : start + BATCH_SIZE])
        yield batch
        progress.add(len(batch))
