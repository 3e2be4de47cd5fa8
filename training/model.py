"""The networks: ResNet-50 v1 (He et al., arXiv 1512.03385) with one logit, as Keras builds it and with BatchNorm folded away.

BatchNorm with fixed statistics is an affine map of a convolution's output, so it can be folded into the kernel and bias
(Jacob et al., arXiv 1712.05877, section 3.2). Training uses the statistics of the batch; what is exported is folded. Folded,
bfloat16 convolutions fuse with bias and ReLU on the CPU.
"""

from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

MEAN = np.array([123.675, 116.28, 103.53])
STD = np.array([58.395, 57.12, 57.375])
"""Of pixels 0 to 255 in RGB order: Keras's `torch` mode. A layer of the network applies them, so that they travel with it."""

CAFFE_MEAN = np.array([123.68, 116.779, 103.939])
"""What Keras's own weights expect to be subtracted, from BGR and without scaling."""

STAGES = {"conv2": (64, 3, 1), "conv3": (128, 4, 2), "conv4": (256, 6, 2), "conv5": (512, 3, 2)}
"""Stage -> width, number of blocks, stride of the first."""

LOGIT_LAYER = "malignant"
DIAGNOSES_LAYER = "diagnoses"
RUN_WEIGHTS = ".weights.h5"


def build_classifier(weights: str, frozen_stages: tuple[str, ...] = ()) -> keras.Model:
    """Pixels 0 to 255 [N, H, W, 3] -> logit of malignant against benign [N, 1].

    The network takes any size; `serving.contract` fixes the exported one.

    Args:
        weights: `imagenet` (Keras's own download), `none`, the path of an .npz with keys `<layer>/<weight>`, or the
            model.weights.h5 of an earlier run with the same layers.
        frozen_stages: prefixes of layer names that are not trained, such as `conv1`; their BatchNorm keeps its statistics.

    Raises:
        ValueError: weights of no such kind; or the .npz lacks a weight of the backbone or brings another shape.
    """
    if weights not in ("imagenet", "none") and not weights.endswith((".npz", RUN_WEIGHTS)):
        raise ValueError(f"weights {weights!r} are neither imagenet nor none nor an .npz nor a run's {RUN_WEIGHTS}")
    backbone = keras.applications.ResNet50(
        include_top=False, weights="imagenet" if weights == "imagenet" else None, input_shape=(None, None, 3)
    )
    if weights == "imagenet":
        take_normalised_rgb(backbone)
    elif weights.endswith(".npz"):
        _load_npz(backbone, Path(weights))
    for layer in backbone.layers:
        if frozen_stages and layer.name.startswith(frozen_stages):
            layer.trainable = False
    inputs = keras.Input((None, None, 3), name="images")
    rescaling = keras.layers.Rescaling(list(1 / STD), list(-MEAN / STD), name="normalisation", dtype="float32")
    embedding = keras.layers.GlobalAveragePooling2D(name="embedding", dtype="float32")(backbone(rescaling(inputs)))
    logit = keras.layers.Dense(1, name=LOGIT_LAYER, dtype="float32", kernel_initializer="zeros")(embedding)
    classifier = keras.Model(inputs, logit, name="lesion")
    if weights.endswith(RUN_WEIGHTS):
        classifier.load_weights(weights)
    return classifier


def add_diagnoses(classifier: keras.Model, count: int) -> keras.Model:
    """The classifier with a second head for training: logits of so many diagnoses, from the same embedding."""
    embedding = classifier.get_layer("embedding").output
    diagnoses = keras.layers.Dense(count, name=DIAGNOSES_LAYER, dtype="float32", kernel_initializer="zeros")(embedding)
    return keras.Model(classifier.inputs, [classifier.output, diagnoses], name="lesion_with_diagnoses")


def backbone_of(classifier: keras.Model) -> keras.Model:
    """The convolutional part of a classifier."""
    return next(layer for layer in classifier.layers if isinstance(layer, keras.Model))


def fold(backbone: keras.Model) -> keras.Model:
    """The same function without BatchNorm layers; a network that has none comes back unchanged."""
    if not any(isinstance(layer, keras.layers.BatchNormalization) for layer in backbone.layers):
        return backbone
    folded = _folded_resnet50()
    for layer in folded.layers:
        if isinstance(layer, keras.layers.Conv2D):
            norm = backbone.get_layer(layer.name.removesuffix("_conv") + "_bn")
            layer.set_weights(_fold_weights(backbone.get_layer(layer.name), norm))
    return folded


def _fold_weights(conv: keras.layers.Conv2D, norm: keras.layers.BatchNormalization) -> list[npt.NDArray[np.float32]]:
    kernel, bias = conv.get_weights()
    gamma, beta, mean, variance = norm.get_weights()
    gain = gamma / np.sqrt(variance + norm.epsilon)
    return [kernel * gain, (bias - mean) * gain + beta]


def _folded_resnet50() -> keras.Model:
    """Layer names as in `keras.applications.ResNet50`."""
    layers = keras.layers
    inputs = keras.Input((None, None, 3))
    x = layers.ZeroPadding2D(3)(inputs)
    x = layers.Conv2D(64, 7, strides=2, activation="relu", name="conv1_conv")(x)
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    for stage, (width, blocks, stride) in STAGES.items():
        for block in range(1, blocks + 1):
            x = _residual_block(x, f"{stage}_block{block}", width, stride if block == 1 else 1, has_projection=block == 1)
    return keras.Model(inputs, x, name="resnet50_folded")


def _residual_block(x: keras.KerasTensor, name: str, width: int, stride: int, has_projection: bool) -> keras.KerasTensor:
    layers = keras.layers
    shortcut = layers.Conv2D(4 * width, 1, strides=stride, name=f"{name}_0_conv")(x) if has_projection else x
    x = layers.Conv2D(width, 1, strides=stride, activation="relu", name=f"{name}_1_conv")(x)
    x = layers.Conv2D(width, 3, padding="same", activation="relu", name=f"{name}_2_conv")(x)
    x = layers.Conv2D(4 * width, 1, name=f"{name}_3_conv")(x)
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([shortcut, x]))


def take_normalised_rgb(backbone: keras.Model) -> None:
    """Turn weights for Keras's `caffe` mode into weights for ours, so that every network normalises alike.

    Only the first convolution changes. The means differ by half a grey level, which its bias takes up everywhere but at the
    padded border.
    """
    first = backbone.get_layer("conv1_conv")
    kernel, bias = first.get_weights()
    kernel = kernel[:, :, ::-1, :]
    bias = bias + np.einsum("hwio,i->o", kernel, MEAN - CAFFE_MEAN)
    first.set_weights([kernel * STD[:, None], bias])


def _load_npz(model: keras.Model, path: Path) -> None:
    """Set every weight, or raise: nothing is loaded loosely."""
    with np.load(path) as stored:
        for layer in model.layers:
            values = []
            for variable in layer.weights:
                key = f"{layer.name}/{variable.name}"
                if key not in stored or stored[key].shape != tuple(variable.shape):
                    raise ValueError(f"{path} has no {key} of shape {tuple(variable.shape)}")
                values.append(stored[key])
            layer.set_weights(values)
