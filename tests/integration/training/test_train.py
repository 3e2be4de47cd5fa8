import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tests.untrained import telling_apart
from training.batches import Batches
from training.calibrate import load_network
from training.config import Phase, paper
from training.data import Example
from training.graph import NetworkWeights, run_batches
from training.model import build_classifier
from training.train import AUC, Accuracy, train


def test_a_run_leaves_weights_history_curves_and_its_configuration(trained_run):
    history = json.loads((trained_run / "history.json").read_text())

    assert len(history) == 2
    assert all(np.isfinite(row["val_loss"]) for row in history)
    assert (trained_run / "model.weights.h5").stat().st_size > 90e6
    assert list((trained_run / "tensorboard").rglob("events.*"))
    with Image.open(trained_run / "curves.png") as curves:
        assert curves.size == (1200, 480)


def test_an_interrupted_run_goes_on_from_its_last_whole_epoch(tiny_config, tmp_path):
    run = tmp_path / "run"
    config = dataclasses.replace(tiny_config, ema_momentum=None, phases=(Phase(1, 32), Phase(1, 32)))
    train(dataclasses.replace(config, phases=(Phase(1, 32),)), run)
    before = stored_head(run / "checkpoint.weights.h5")
    # An interruption between the two files leaves the history one epoch ahead.
    history = json.loads((run / "history.json").read_text())
    (run / "history.json").write_text(json.dumps([*history, history[0]]))
    # So slow that what the second epoch ends with is what it began with.
    slow = dataclasses.replace(config, learning_rate=1e-9)
    (run / "config.json").write_text(slow.to_json())

    train(slow, run)

    assert np.abs(before).max() > 0
    np.testing.assert_allclose(stored_head(run / "model.weights.h5"), before, atol=1e-6)
    after = json.loads((run / "history.json").read_text())
    assert len(after) == 2
    assert after[0] == history[0]
    assert after[1] != history[0]


def test_averaged_weights_are_taken_on_when_a_run_resumes_between_two_phases(tiny_config, tmp_path):
    """As Keras does it between the fits of a run that is not interrupted."""
    run = tmp_path / "run"
    train(dataclasses.replace(tiny_config, phases=(Phase(1, 32),)), run)
    average = stored_head(run / "model.weights.h5")
    assert np.abs(stored_head(run / "checkpoint.weights.h5") - average).max() > 1e-6
    slow = dataclasses.replace(tiny_config, phases=(Phase(1, 32), Phase(1, 32)), learning_rate=1e-9)
    (run / "config.json").write_text(slow.to_json())

    train(slow, run)

    np.testing.assert_allclose(stored_head(run / "checkpoint.weights.h5"), average, atol=1e-6)


def stored_head(path):
    """Kernel of the last layer: it starts at zero, so that training shows."""
    classifier = build_classifier("none")
    classifier.load_weights(path)
    return classifier.get_layer("malignant").get_weights()[0]


def test_another_configuration_does_not_overwrite_a_run(tiny_config, trained_run):
    before = (trained_run / "config.json").read_text()

    with pytest.raises(ValueError, match="another configuration"):
        train(dataclasses.replace(tiny_config, batch_size=8), trained_run)

    assert (trained_run / "config.json").read_text() == before


def test_labels_are_mixed_with_the_initial_answers_which_all_captures_of_a_picture_share(tiny_config):
    rng = np.random.default_rng(8)
    pixels = (np.array([60, 90, 150])[:, None, None, None] + rng.integers(-30, 31, (3, 224, 224, 3))).astype(np.uint8)
    examples = [
        Example(Path(path), label, "paint", source, label, "train")
        for path, label, source in (("a/1", "malignant", "a"), ("b/1", "malignant", "b"), ("a/2", "benign", "a"))
    ]
    labels = np.array([1, 1, 0], np.float32)
    config = dataclasses.replace(tiny_config, own_answer_share=0.4, weights="earlier/model.weights.h5")
    classifier = telling_apart(pixels, labels == 1)
    answers = 1 / (1 + np.exp(-run_batches(NetworkWeights(classifier), [pixels])["logit"]))

    mixed = Batches(config, examples, pixels, labels, [], pixels[:0]).with_own_answers(classifier)

    assert abs(answers[0] - answers[1]) > 0.01
    expected = 0.6 * labels + 0.4 * np.array([answers[:2].mean(), answers[:2].mean(), answers[2]])
    np.testing.assert_allclose(mixed.train_labels, expected, atol=1e-6)
    assert mixed.targets(examples, mixed.train_labels)(np.array([2, 0]))[0].shape == (2, 1)
    untrained = dataclasses.replace(mixed, config=dataclasses.replace(config, weights="imagenet"))
    with pytest.raises(ValueError, match="not learnt to answer"):
        untrained.with_own_answers(classifier)


def test_mixed_labels_are_scored_as_what_they_were():
    labels, logits = [[0.62], [0.6], [0.38], [0.0]], [[2.0], [-1.0], [0.5], [-3.0]]

    accuracy = Accuracy(threshold=0.0)(labels, logits)
    area = AUC(from_logits=True)(labels, logits)

    assert float(accuracy) == 0.5
    assert float(area) == pytest.approx(0.75, abs=0.01)


def test_the_papers_recipe_runs_on_folders_and_its_h5_answers_as_the_graph(tmp_path):
    rng = np.random.default_rng(7)
    for split, count in (("train", 12), ("test", 2)):
        for label, grey in (("benign", 150), ("malignant", 60)):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                noise = rng.integers(-30, 31, (40, 40, 3))
                Image.fromarray((grey + noise).astype(np.uint8)).save(folder / f"{index}.png")
    config = dataclasses.replace(
        paper(str(tmp_path / "data")), weights="none", phases=(Phase(1, 64),), batch_size=4, steps_per_epoch=1
    )

    train(config, tmp_path / "run")

    images = rng.integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    stored = keras.models.load_model(tmp_path / "run" / "model.h5", compile=False)
    expected = stored(images.astype(np.float32), training=False).numpy()[:, 0]
    logits = run_batches(load_network(tmp_path / "run"), [images])["logit"]
    np.testing.assert_allclose(logits, expected, rtol=0.1, atol=0.02)
    assert [layer for layer in stored.get_layer("resnet50").layers if isinstance(layer, keras.layers.BatchNormalization)]
