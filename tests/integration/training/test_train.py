import dataclasses
import json

import keras
import numpy as np
import pytest
from PIL import Image

from training.calibrate import load_network
from training.config import Phase, paper
from training.graph import run_batches
from training.model import build_classifier
from training.train import train


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

    # As a run of five epochs looks that was stopped after the first.
    whole = dataclasses.replace(config, phases=(Phase(5, 64),))
    (tmp_path / "run" / "config.json").write_text(whole.to_json())
    (tmp_path / "run" / "model.weights.h5").unlink()
    train(whole.shortened(1), tmp_path / "run")
    np.testing.assert_array_equal(run_batches(load_network(tmp_path / "run"), [images])["logit"], logits)

    train(whole.shortened(2), tmp_path / "other")
    with pytest.raises(ValueError, match="2 epochs already"):
        train(whole.shortened(1), tmp_path / "other")
