from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf

from serving.contract import IMAGE_SHAPE
from training.augment import augment, compose, resize
from training.config import Augmentation
from training.graph import NetworkWeights, run_network
from training.model import CAFFE_MEAN, MEAN, STD, build_classifier, fold, take_normalised_rgb


@pytest.fixture(scope="module")
def backbone():
    """With statistics as training leaves them: a fresh BatchNorm would hide a mistake in folding."""
    network = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(None, None, 3))
    rng = np.random.default_rng(2)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = (weight.shape for weight in layer.get_weights())
            layer.set_weights(
                [
                    rng.uniform(0.5, 1.0, gamma),
                    rng.normal(0, 0.1, beta),
                    rng.normal(0, 0.1, mean),
                    rng.uniform(0.7, 1.4, variance),
                ]
            )
    return network


def test_folding_changes_no_answer(backbone):
    images = np.random.default_rng(1).normal(size=(2, 64, 64, 3)).astype(np.float32)

    before, after = backbone(images).numpy(), fold(backbone)(images).numpy()

    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in fold(backbone).layers)
    assert np.abs(before).max() > 0.1
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4 * np.abs(before).max())


def test_an_npz_gives_the_weights_and_a_lacking_one_is_refused(backbone, tmp_path):
    weights = {f"{layer.name}/{value.name}": value.numpy() for layer in backbone.layers for value in layer.weights}
    np.savez(tmp_path / "all.npz", **weights)
    del weights["conv4_block2_2_bn/gamma"]
    np.savez(tmp_path / "lacking.npz", **weights)

    network = build_classifier(str(tmp_path / "all.npz"))

    kernel = backbone.get_layer("conv3_block1_2_conv").get_weights()[0]
    assert np.array_equal(network.get_layer("resnet50").get_layer("conv3_block1_2_conv").get_weights()[0], kernel)
    with pytest.raises(ValueError, match="conv4_block2_2_bn/gamma"):
        build_classifier(str(tmp_path / "lacking.npz"))


def test_the_exported_operations_give_the_answers_of_the_keras_network():
    # Else the seed of the run makes the weights, and with some of them what bfloat16 rounds away outweighs what is left.
    keras.utils.set_random_seed(4)
    network = build_classifier("none")
    rng = np.random.default_rng(4)
    head = network.get_layer("malignant")
    head.set_weights([rng.normal(size=(2048, 1)), np.array([0.25])])
    images = rng.integers(0, 256, (3, *IMAGE_SHAPE), dtype=np.uint8)

    expected = network(images.astype(np.float32)).numpy()[:, 0]
    outputs = run_network(NetworkWeights(network), tf.constant(images))

    np.testing.assert_allclose(outputs["logit"], expected, rtol=0.05, atol=0.05 * np.abs(expected).max())
    np.testing.assert_allclose(tf.reduce_mean(outputs["activation_map"], axis=[1, 2]), outputs["logit"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", get_args(Augmentation))
def test_augmentations_differ_between_pictures_and_stay_pixels(kind):
    picture = np.zeros(IMAGE_SHAPE, np.uint8)
    picture[40:120, 60:180] = (180, 90, 60)
    pictures = tf.constant(np.stack([picture] * 4))
    change = tf.function(lambda seed: augment(pictures, 96, kind, seed))

    augmented = change(tf.constant([3, 1])).numpy()

    assert augmented.shape == (4, 96, 96, 3)
    assert augmented.min() >= 0
    assert augmented.max() <= 255
    assert not np.array_equal(augmented[0], augmented[1])
    assert np.array_equal(change(tf.constant([3, 1])), augmented)
    assert not np.array_equal(change(tf.constant([3, 2])), augmented)


def test_captures_get_hair_rims_and_ruler_marks():
    """On flat grey pictures nothing else leaves a mark, at the border neither."""
    pictures = tf.constant(np.full((200, *IMAGE_SHAPE), 140, np.uint8))

    changed = augment(pictures, 96, "capture", tf.constant([4, 4])).numpy()
    gentle = augment(pictures, 96, "gentle", tf.constant([4, 4])).numpy()

    def is_marked(images):
        return (images.max(axis=(1, 2)) - images.min(axis=(1, 2))).max(axis=1) > 8

    assert 0.3 < is_marked(changed).mean() < 0.65
    assert not is_marked(gentle).any()


def test_maps_are_composed_as_image_data_generator_does():
    angle, (move_x, move_y), (scale_x, scale_y) = 0.3, (0.2, -0.1), (0.9, -1.1)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    shift = np.array([[1, 0, move_x], [0, 1, move_y], [0, 0, 1]])

    composed = compose(tf.constant([angle]), tf.constant([[move_x, move_y]]), tf.constant([[scale_x, scale_y]]))

    np.testing.assert_allclose(composed[0], (rotation @ shift @ np.diag([scale_x, scale_y, 1]))[:2], atol=1e-6)


def test_the_papers_pictures_are_turned_shifted_and_zoomed_by_its_ranges():
    """A white dot and its neighbours on black, followed through many draws."""
    picture = np.zeros(IMAGE_SHAPE, np.uint8)
    for x, y in ((112, 112), (152, 112), (112, 152)):
        picture[y - 2 : y + 3, x - 2 : x + 3, {(112, 112): 0, (152, 112): 1, (112, 152): 2}[x, y]] = 255

    images = augment(tf.constant(np.stack([picture] * 400)), 224, "paper", tf.constant([5, 5])).numpy()

    rows, columns = np.mgrid[:224, :224]
    weight = images.sum(axis=(1, 2))
    whole = (weight > 0.6 * weight.max(axis=0)).all(axis=1)
    centre = np.stack([(images * axis[None, :, :, None]).sum(axis=(1, 2)) / weight for axis in (columns, rows)], axis=-1)[whole]
    along_x, along_y = centre[:, 1] - centre[:, 0], centre[:, 2] - centre[:, 0]
    zoom_x, zoom_y = 40 / np.hypot(*along_x.T), 40 / np.hypot(*along_y.T)
    degrees = np.degrees(np.arctan2(np.abs(along_y[:, 0]), np.abs(along_y[:, 1])))
    assert len(centre) > 200
    assert 0.84 < zoom_y.min() < 0.9
    assert 1.1 < zoom_y.max() < 1.2
    assert np.abs(zoom_x / zoom_y - 1).max() > 0.15
    assert 15 < degrees.max() < 27
    assert 0.3 < (along_x[:, 0] < 0).mean() < 0.7
    assert (along_y[:, 1] > 0).all()
    assert 30 < np.abs(centre[:, 0] - 112).max() < 60


def test_keras_own_weights_answer_alike_in_our_normalisation():
    network = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(None, None, 3))
    first = keras.Model(network.input, network.get_layer("conv1_conv").output)
    pixels = np.random.default_rng(3).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)

    expected = first(pixels[..., ::-1] - CAFFE_MEAN[::-1].astype(np.float32)).numpy()
    take_normalised_rgb(network)
    converted = first((pixels - MEAN.astype(np.float32)) / STD.astype(np.float32)).numpy()

    # The border sees padding, which stands for another grey in each normalisation.
    np.testing.assert_allclose(converted[:, 3:-3, 3:-3], expected[:, 3:-3, 3:-3], atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("weights", ["imagenette", "resnet50_notop.h5", ""])
def test_weights_that_are_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="neither imagenet nor none"):
        build_classifier(weights)


def test_validation_pictures_are_only_resized():
    picture = np.full((1, *IMAGE_SHAPE), 77, np.uint8)

    assert np.array_equal(resize(tf.constant(picture), 224).numpy(), picture.astype(np.float32))
    assert np.allclose(resize(tf.constant(picture), 96).numpy(), 77.0)
