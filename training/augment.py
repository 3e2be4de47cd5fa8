"""Batched augmentations in TensorFlow: what lies on the skin, geometry in one resampling, then colour and capture differences.

`paper` is the seed's list with Keras's ImageDataGenerator semantics: rotation up to 20 degrees, width and height shift 0.2,
zoom 0.15, horizontal flip, nearest fill. `capture` adds the dihedral group, aspect and scale, colour jitter, hair, ruler marks,
vignettes, blur, a coarser sensor and JPEG grade: what differs between two captures of one lesion. `gentle` leaves out what
destroys detail. `foreign` goes further than any capture at hand, for a camera that no data set here has: the none score is
fitted with it, no network is trained with it.

All draws come from the seed of the batch: the same seed gives the same pixels, whatever the threads do.
"""

import math

import tensorflow as tf

from serving.contract import IMAGE_SIZE
from training.config import Augmentation

_BLUR_KERNEL = [1.0, 4.0, 6.0, 4.0, 1.0]
_HAIRS = 5


class _Draws:
    """Random numbers of one batch: every call draws others, and the same seed draws the same again."""

    def __init__(self, seed: tf.Tensor) -> None:
        self._seed = seed
        self._calls = 0

    def seed(self) -> tf.Tensor:
        self._calls += 1
        return tf.random.fold_in(self._seed, self._calls)

    def uniform(self, shape: list[tf.Tensor | int], low: float, high: float) -> tf.Tensor:
        return tf.random.stateless_uniform(shape, self.seed(), low, high)

    def chosen(self, count: tf.Tensor, share: float) -> tf.Tensor:
        """Shape [N, 1, 1, 1]: 1 for about so many of the pictures, 0 for the others."""
        return tf.cast(self.uniform([count, 1, 1, 1], 0.0, 1.0) < share, tf.float32)

    def factor(self, shape: list[tf.Tensor | int], spread: float) -> tf.Tensor:
        """As often larger than one as smaller."""
        return tf.exp(self.uniform(shape, -spread, spread))


def augment(images: tf.Tensor, size: int, kind: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Augment a batch.

    Args:
        images: uint8 [N, 224, 224, 3].
        size: edge of the result.
        kind: which list of augmentations.
        seed: int32 [2]; the same gives the same result.

    Returns:
        float32 [N, size, size, 3], 0 to 255.
    """
    draws = _Draws(seed)
    count = tf.shape(images)[0]
    images = resize(images, size)
    if kind == "paper":
        zoom = draws.uniform([count, 2], 1 - 0.15, 1 + 0.15)
        return _resample(images, _affine(draws, zoom, max_degrees=20.0, shift=0.2))
    if kind == "gentle":
        transforms = _affine(draws, _scale(draws, count, (0.8, 1.1), 1.2), max_degrees=15.0, shift=0.05, right_angles=True)
        return _colour(draws, _resample(images, transforms), strength=0.6)
    images = _overlay(draws, images)
    if kind == "foreign":
        images = _overlay(draws, images)
        transforms = _affine(draws, _scale(draws, count, (0.5, 1.6), 1.6), max_degrees=30.0, shift=0.15, right_angles=True)
        images = _colour(draws, _resample(images, transforms), strength=2.2)
    else:
        transforms = _affine(draws, _scale(draws, count, (0.7, 1.15), 4 / 3), max_degrees=20.0, shift=0.08, right_angles=True)
        images = _colour(draws, _resample(images, transforms), strength=1.0)
    return _jpeg(draws, _coarsen(draws, _blur(draws, images)))


def resize(images: tf.Tensor, size: int) -> tf.Tensor:
    """Float32 copy at another size, as validation sees it. [N, 224, 224, 3] -> [N, size, size, 3]."""
    if size == IMAGE_SIZE:
        return tf.cast(images, tf.float32)
    return tf.image.resize(images, (size, size), antialias=True)


def _scale(draws: _Draws, count: tf.Tensor, zoom: tuple[float, float], aspect: float) -> tf.Tensor:
    """Both axes together, and against each other by at most `aspect`: [N, 2]."""
    scale = draws.uniform([count, 1], math.log(zoom[0]), math.log(zoom[1]))
    stretch = draws.uniform([count, 1], -0.5, 0.5) * math.log(aspect)
    return tf.exp(scale + tf.concat([stretch, -stretch], axis=1))


def _affine(draws: _Draws, scales: tf.Tensor, max_degrees: float, shift: float, right_angles: bool = False) -> tf.Tensor:
    """Random maps from output to input coordinates, both centred and in units of the edge: [N, 2] -> [N, 2, 3].

    Half of the pictures are flipped left to right; with `right_angles` that makes the whole dihedral group.
    """
    count = tf.shape(scales)[0]
    angle = draws.uniform([count], -max_degrees, max_degrees) * (math.pi / 180)
    if right_angles:
        angle += tf.floor(draws.uniform([count], 0.0, 4.0)) * (math.pi / 2)
    flip = tf.where(draws.uniform([count, 1], 0.0, 1.0) < 0.5, [[-1.0, 1.0]], [[1.0, 1.0]])
    return compose(angle, draws.uniform([count, 2], -shift, shift), scales * flip)


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


def _resample(images: tf.Tensor, transforms: tf.Tensor) -> tf.Tensor:
    """Apply centred, edge-relative maps with bilinear sampling and nearest fill: [N, S, S, 3] -> [N, S, S, 3]."""
    size = images.shape[1]
    centre = (size - 1) / 2
    linear = transforms[:, :, :2]
    offset = transforms[:, :, 2] * size + centre - tf.reduce_sum(linear, axis=2) * centre
    flat = tf.concat([linear[:, 0], offset[:, :1], linear[:, 1], offset[:, 1:], tf.zeros([tf.shape(images)[0], 2])], axis=1)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=flat,
        output_shape=[size, size],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )


def _overlay(draws: _Draws, images: tf.Tensor) -> tf.Tensor:
    """Hair on a quarter of the pictures, ruler marks on a tenth, a dark rim on a fifth."""
    count = tf.shape(images)[0]
    axis = tf.linspace(0.0, 1.0, images.shape[1])
    down, right = tf.meshgrid(axis, axis, indexing="ij")

    # A hair is an arc: where the distance to a far-off centre is the same.
    centres = draws.uniform([count, _HAIRS, 2, 1, 1], -1.5, 2.5)
    radii = tf.norm(centres - draws.uniform([count, _HAIRS, 2, 1, 1], 0.0, 1.0), axis=2)
    away = tf.abs(tf.norm(centres - tf.stack([down, right]), axis=2) - radii)
    strands = tf.exp(-tf.square(away / draws.uniform([count, _HAIRS, 1, 1], 0.003, 0.008)))
    hair = tf.reduce_max(strands, axis=1)[..., None] * draws.chosen(count, 0.25)
    images += (draws.uniform([count, 1, 1, 1], 0.0, 90.0) - images) * 0.85 * hair

    period, length = draws.uniform([count, 1, 1], 0.02, 0.08), draws.uniform([count, 1, 1], 0.02, 0.1)
    marks = tf.cast((tf.math.floormod(right, period) < 0.008) & (down < length), tf.float32)[..., None]
    images *= 1 - 0.8 * marks * draws.chosen(count, 0.1)

    from_centre = tf.sqrt(tf.square(down - 0.5) + tf.square(right - 0.5))
    rim = tf.sigmoid((from_centre - draws.uniform([count, 1, 1], 0.45, 0.65)) / draws.uniform([count, 1, 1], 0.005, 0.06))
    return images * (1 - rim[..., None] * draws.chosen(count, 0.2))


def _colour(draws: _Draws, images: tf.Tensor, strength: float) -> tf.Tensor:
    """Contrast, saturation, brightness and a gain for each channel, all multiplied by random factors."""
    count = tf.shape(images)[0]
    column = [count, 1, 1, 1]
    mean = tf.reduce_mean(images, axis=[1, 2], keepdims=True)
    images = (images - mean) * draws.factor(column, 0.22 * strength) + mean
    grey = tf.reduce_mean(images, axis=3, keepdims=True)
    images = (images - grey) * draws.factor(column, 0.28 * strength) + grey
    gain = draws.factor(column, 0.18 * strength) * draws.factor([count, 1, 1, 3], 0.08 * strength)
    return tf.clip_by_value(images * gain, 0.0, 255.0)


def _blur(draws: _Draws, images: tf.Tensor) -> tf.Tensor:
    """Half of the pictures are mixed with their 5x5 binomial blur."""
    kernel = tf.constant(_BLUR_KERNEL) / 16.0
    kernel = tf.tile((kernel[:, None] * kernel[None, :])[:, :, None, None], [1, 1, 3, 1])
    padded = tf.pad(images, [[0, 0], [2, 2], [2, 2], [0, 0]], "SYMMETRIC")
    blurred = tf.nn.depthwise_conv2d(padded, kernel, strides=[1, 1, 1, 1], padding="VALID")
    amount = tf.nn.relu(draws.uniform([tf.shape(images)[0], 1, 1, 1], -1.0, 1.0))
    return images + (blurred - images) * amount


def _coarsen(draws: _Draws, images: tf.Tensor) -> tf.Tensor:
    """A quarter of the pictures come from a sensor with fewer pixels, the same for the whole batch."""
    size = images.shape[1]
    fewer = tf.cast(size * draws.uniform([], 0.4, 0.8), tf.int32)
    coarse = tf.image.resize(tf.image.resize(images, [fewer, fewer], antialias=True), [size, size])
    return images + (coarse - images) * draws.chosen(tf.shape(images)[0], 0.25)


def _jpeg(draws: _Draws, images: tf.Tensor) -> tf.Tensor:
    """Half of the pictures are coded again at a random grade."""
    seeds = tf.random.experimental.stateless_split(draws.seed(), tf.shape(images)[0])
    pixels = tf.cast(tf.round(images), tf.uint8)

    def code(inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, seed = inputs
        grade = tf.random.stateless_uniform([], seed, 30, 160, tf.int32)
        return tf.cond(grade < 95, lambda: tf.image.adjust_jpeg_quality(image, grade), lambda: image)

    coded = tf.map_fn(code, (pixels, seeds), fn_output_signature=tf.TensorSpec(images.shape[1:], tf.uint8))
    return tf.cast(coded, tf.float32)
