"""Batched augmentations in TensorFlow: geometry in one resampling, then colour and capture differences.

`paper` is the seed's list with Keras's ImageDataGenerator semantics: rotation up to 20 degrees, width and height shift 0.2,
zoom 0.15, horizontal flip, nearest fill. `capture` adds every angle, vertical flips, aspect and scale, colour jitter, blur and
JPEG grade: what differs between two captures of one lesion. `gentle` leaves out what destroys detail, and turns by right angles
and a little more, so that few corners are made up by the fill.
"""

import math

import tensorflow as tf

from serving.contract import IMAGE_SIZE
from training.config import Augmentation

_BLUR_KERNEL = [1.0, 4.0, 6.0, 4.0, 1.0]


def augment(images: tf.Tensor, size: int, kind: Augmentation) -> tf.Tensor:
    """Augment a batch.

    Args:
        images: uint8 [N, 224, 224, 3].
        size: edge of the result.
        kind: which list of augmentations.

    Returns:
        float32 [N, size, size, 3], 0 to 255.
    """
    count = tf.shape(images)[0]
    if kind == "paper":
        transforms = _affine(_zoom(count, 0.15), max_degrees=20.0, shift=0.2)
        return _resample(tf.cast(images, tf.float32), transforms, size)
    if kind == "gentle":
        transforms = _affine(_scale(count, (0.8, 1.1), 1.2), max_degrees=15.0, shift=0.05, right_angles=True)
        return _colour(_resample(tf.cast(images, tf.float32), transforms, size), strength=0.5)
    images = tf.map_fn(_jpeg, images, fn_output_signature=tf.TensorSpec(images.shape[1:], tf.uint8))
    transforms = _affine(_scale(count, (0.65, 1.1), 4 / 3), max_degrees=180.0, shift=0.1, right_angles=True)
    return _blur(_colour(_resample(tf.cast(images, tf.float32), transforms, size)))


def resize(images: tf.Tensor, size: int) -> tf.Tensor:
    """Float32 copy at another size, for validation. [N, 224, 224, 3] -> [N, size, size, 3]."""
    if size == IMAGE_SIZE:
        return tf.cast(images, tf.float32)
    return tf.image.resize(images, (size, size), antialias=True)


def _zoom(count: tf.Tensor, spread: float) -> tf.Tensor:
    """Each axis for itself, as ImageDataGenerator does it: [N, 2]."""
    return tf.random.uniform([count, 2], 1 - spread, 1 + spread)


def _scale(count: tf.Tensor, zoom: tuple[float, float], aspect: float) -> tf.Tensor:
    """Both axes together, and against each other by at most `aspect`: [N, 2]."""
    scale = tf.random.uniform([count, 1], math.log(zoom[0]), math.log(zoom[1]))
    stretch = tf.random.uniform([count, 1], -0.5, 0.5) * math.log(aspect)
    return tf.exp(scale + tf.concat([stretch, -stretch], axis=1))


def _affine(scales: tf.Tensor, max_degrees: float, shift: float, right_angles: bool = False) -> tf.Tensor:
    """Random maps from output to input coordinates, both centred and in units of the edge: [N, 2] -> [N, 2, 3].

    Half of the pictures are flipped left to right; with `right_angles` that makes the whole dihedral group.
    """
    count = tf.shape(scales)[0]
    angle = tf.random.uniform([count], -max_degrees, max_degrees) * (math.pi / 180)
    if right_angles:
        angle += tf.cast(tf.random.uniform([count], 0, 4, tf.int32), tf.float32) * (math.pi / 2)
    flip = tf.where(tf.random.uniform([count, 1]) < 0.5, [[-1.0, 1.0]], [[1.0, 1.0]])
    return compose(angle, tf.random.uniform([count, 2], -shift, shift), scales * flip)


def compose(angle: tf.Tensor, move: tf.Tensor, scales: tf.Tensor) -> tf.Tensor:
    """Rotation x shift x zoom, in the order of ImageDataGenerator: input = rotation (zoom x output + move).

    Args:
        angle: radians, [N].
        move: x and y in units of the edge, [N, 2].
        scales: of x and y, [N, 2].

    Returns:
        [N, 2, 3].
    """
    cos, sin = tf.cos(angle), tf.sin(angle)
    rotation = tf.stack([tf.stack([cos, -sin], axis=1), tf.stack([sin, cos], axis=1)], axis=1)
    return tf.concat([rotation * scales[:, None, :], tf.matmul(rotation, move[:, :, None])], axis=2)


def _resample(images: tf.Tensor, transforms: tf.Tensor, size: int) -> tf.Tensor:
    """Apply centred, edge-relative maps with bilinear sampling and nearest fill."""
    ratio = IMAGE_SIZE / size
    centre_in, centre_out = (IMAGE_SIZE - 1) / 2, (size - 1) / 2
    linear = transforms[:, :, :2] * ratio
    offset = transforms[:, :, 2] * IMAGE_SIZE + centre_in - tf.reduce_sum(linear, axis=2) * centre_out
    flat = tf.concat([linear[:, 0], offset[:, :1], linear[:, 1], offset[:, 1:], tf.zeros([tf.shape(images)[0], 2])], axis=1)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=flat,
        output_shape=[size, size],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )


def _jpeg(image: tf.Tensor) -> tf.Tensor:
    """Half of the pictures are coded again at a random grade."""
    quality = tf.random.uniform([], 30, 96, dtype=tf.int32)
    return tf.cond(tf.random.uniform([]) < 0.5, lambda: tf.image.adjust_jpeg_quality(image, quality), lambda: image)


def _colour(images: tf.Tensor, strength: float = 1.0) -> tf.Tensor:
    """Contrast, saturation, brightness and a gain for each channel, all multiplied by random factors."""
    count = tf.shape(images)[0]
    column = [count, 1, 1, 1]
    mean = tf.reduce_mean(images, axis=[1, 2], keepdims=True)
    contrast = _factor(column, 0.22, strength)
    images = (images - mean) * contrast + mean
    grey = tf.reduce_mean(images, axis=3, keepdims=True)
    images = (images - grey) * _factor(column, 0.28, strength) + grey
    gain = _factor(column, 0.16, strength) * _factor([count, 1, 1, 3], 0.07, strength)
    return tf.clip_by_value(images * gain, 0.0, 255.0)


def _factor(shape: list[tf.Tensor | int], spread: float, strength: float) -> tf.Tensor:
    """As often larger than one as smaller."""
    return tf.exp(tf.random.uniform(shape, -spread, spread) * strength)


def _blur(images: tf.Tensor) -> tf.Tensor:
    """Half of the pictures are mixed with their 5x5 binomial blur."""
    kernel = tf.constant(_BLUR_KERNEL) / 16.0
    kernel = tf.tile((kernel[:, None] * kernel[None, :])[:, :, None, None], [1, 1, 3, 1])
    blurred = tf.nn.depthwise_conv2d(images, kernel, strides=[1, 1, 1, 1], padding="SAME")
    amount = tf.nn.relu(tf.random.uniform([tf.shape(images)[0], 1, 1, 1], -1.0, 1.0))
    return images + (blurred - images) * amount
