"""The released weights as the paper would have them: Keras's ResNet50 in float32 and a sigmoid, in an `.h5` file.

The released graph has BatchNorm folded into its convolutions. Here the folded kernels stand in the convolutions, and each
BatchNorm is there with statistics and gains that change nothing: it costs what it costs the paper. Calibration stands in the
last layer. The none score and the activation map, which the paper does not have, are left out.
"""

from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import node_def_pb2

from scripts.bench.graph import load_float32
from training.model import LOGIT_LAYER, STAGES, backbone_of, build_classifier

Floats = npt.NDArray[np.float32]


def write_h5(version: Path, path: Path) -> None:
    """Build it from a version's graph."""
    weights = ReleasedWeights(version)
    classifier = build_classifier("none")
    backbone = backbone_of(classifier)
    for name, (kernel, bias) in zip(convolution_names(), weights.convolutions(), strict=True):
        backbone.get_layer(name).set_weights([kernel, bias])
        norm = backbone.get_layer(name.removesuffix("_conv") + "_bn")
        ones = np.ones_like(bias)
        norm.set_weights([ones * np.sqrt(1 + norm.epsilon), 0 * ones, 0 * ones, ones])
    classifier.get_layer(LOGIT_LAYER).set_weights(list(weights.calibrated_head()))
    probability = keras.layers.Activation("sigmoid", name="probability")(classifier.output)
    keras.Model(classifier.inputs, probability).save(path)


def convolution_names() -> list[str]:
    """Layers of Keras's ResNet50, in the order in which `training.graph` makes the convolutions."""
    names = ["conv1_conv"]
    for stage, (_, blocks, _) in STAGES.items():
        for block in range(1, blocks + 1):
            names += [f"{stage}_block{block}_{number}_conv" for number in range(0 if block == 1 else 1, 4)]
    return names


class ReleasedWeights:
    """What stands in a version's graph, in float32."""

    def __init__(self, version: Path) -> None:
        graph, _ = load_float32(version)
        self._nodes = {node.name: node for node in graph.node}

    def convolutions(self) -> list[tuple[Floats, Floats]]:
        """Kernel and bias of each, in the order in which they were made."""
        biases = {node.input[0]: node.input[1] for node in self._nodes.values() if node.op == "BiasAdd"}
        made = sorted((node for node in self._nodes.values() if node.op == "Conv2D"), key=_number)
        return [(self._constant(node.input[1]), self._constant(biases[node.name])) for node in made]

    def calibrated_head(self) -> tuple[Floats, Floats]:
        """Kernel [2048, 1] and bias [1] of the one logit, with slope and intercept of the calibration in them."""
        (sigmoid,) = (node for node in self._nodes.values() if node.op == "Sigmoid")
        calibrated, intercept = self._inputs(sigmoid.input[0])
        slope, logit = self._inputs(calibrated.name)
        squeezed, bias = self._inputs(logit.name)
        (product,) = self._inputs(squeezed.name)
        expanded = self._inputs(product.name)[1]
        kernel = self._inputs(expanded.name)[0]
        factor = self._constant(slope.name)
        head_bias = factor * self._constant(bias.name) + self._constant(intercept.name)
        return factor * self._constant(kernel.name)[:, None], np.array([head_bias], np.float32)

    def _inputs(self, name: str) -> list[node_def_pb2.NodeDef]:
        """Of a node, looking through those that only pass on."""
        return [self._behind(one) for one in self._nodes[name].input]

    def _behind(self, name: str) -> node_def_pb2.NodeDef:
        node = self._nodes[name]
        while node.op == "Identity":
            node = self._nodes[node.input[0]]
        return node

    def _constant(self, name: str) -> Floats:
        return tf.make_ndarray(self._nodes[name].attr["value"].tensor)


def _number(node: node_def_pb2.NodeDef) -> int:
    """TensorFlow names them Conv2D, Conv2D_1, Conv2D_2 and so on."""
    return int(node.name.rpartition("Conv2D")[2].removeprefix("_") or 0)
