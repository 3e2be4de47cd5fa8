import csv

import keras
import numpy as np
import pytest
from PIL import Image

from training.config import Phase, TrainingConfig
from training.train import train

COLOURS = {"benign": (150, 110, 90), "malignant": (70, 30, 30), "none/photo": (30, 60, 200), "none/tinea": (40, 60, 190)}


@pytest.fixture(autouse=True)
def same_start():
    """A run sets the seed and the precision of the whole process; no test may depend on which one ran before it."""
    keras.utils.set_random_seed(6)
    keras.mixed_precision.set_global_policy("float32")


@pytest.fixture(scope="session")
def painted_data(tmp_path_factory):
    """A CSV of small noisy squares, one colour a class, in all three splits."""
    root = tmp_path_factory.mktemp("painted")
    rng = np.random.default_rng(5)
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "dx", "source", "lesion_id", "group", "split"])
        for split, count in (("train", 12), ("val", 8), ("test", 8)):
            for folder, colour in COLOURS.items():
                label = folder.partition("/")[0]
                for index in range(count):
                    path = f"{folder}/{split}-{index}.png"
                    (root / path).parent.mkdir(parents=True, exist_ok=True)
                    noise = rng.integers(-30, 31, (48, 64, 3))
                    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(root / path)
                    name = f"{folder}-{split}-{index}"
                    writer.writerow([path, label, f"{folder} paint", "painted", name, name, split])
    return root / "labels.csv"


@pytest.fixture(scope="session")
def tiny_config(painted_data):
    return TrainingConfig(
        name="tiny",
        data=str(painted_data),
        weights="none",
        phases=(Phase(epochs=1, image_size=32), Phase(epochs=1, image_size=48)),
        batch_size=4,
        steps_per_epoch=2,
        malignant_share=0.5,
        diagnosis_weight=0.5,
        ema_momentum=0.5,
    )


@pytest.fixture(scope="session")
def trained_run(tiny_config, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "tiny"
    train(tiny_config, run)
    return run
