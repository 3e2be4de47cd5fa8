"""Trains a run: phases of growing resolution, resumable after every epoch, with curves for TensorBoard and PNG."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from serving.contract import IMAGE_SHAPE
from training.augment import augment, resize
from training.config import Phase, TrainingConfig
from training.data import Example, binary_labels, evenly, load_examples, load_pixels, select
from training.figures import draw_curves
from training.model import build_classifier

WEIGHTS_FILE = "model.weights.h5"
CHECKPOINT_FILE = "checkpoint.weights.h5"
H5_FILE = "model.h5"
HISTORY_FILE = "history.json"


def train(config: TrainingConfig, run: Path) -> Path:
    """Train and leave weights, history and curves in the run's folder; call again to resume after the last whole epoch.

    A resumed run draws other pictures and augmentations than one that was not interrupted would have drawn.

    Args:
        config: the resolved configuration; on resuming it must equal the one the run was started with.
        run: gets config.json, checkpoint.weights.h5, history.json, curves.png, tensorboard/ and model.weights.h5; decoded
            pictures are kept in cache/ beside it.

    Returns:
        The file of the final (averaged) weights.

    Raises:
        ValueError: the folder holds a run with another configuration.
    """
    _claim(run, config)
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(config.precision)
    examples = load_examples(Path(config.data), config.validation_share, config.seed)
    train_examples = evenly(select(examples, "train"), config.max_examples)
    val_examples = evenly(select(examples, "val"), config.max_epoch_validation_examples)
    train_pixels = load_pixels(train_examples, run.parent / "cache")
    val_pixels = load_pixels(val_examples, run.parent / "cache")
    pictures = _captures(train_examples)
    steps = config.steps_per_epoch or math.ceil(len(pictures) / config.batch_size)

    model = build_classifier(config.weights, config.freeze_batch_norm, config.frozen_stages)
    # XLA has no oneDNN convolutions on the CPU: with it, bfloat16 loses its speed.
    model.compile(
        optimizer=_optimizer(config, steps * config.epochs),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy"), keras.metrics.AUC(from_logits=True, name="auc")],
        jit_compile=False,
    )
    checkpoint = _Checkpoint(run)
    done = checkpoint.restore(model, steps)
    first = 0
    for phase in config.phases:
        last = first + phase.epochs
        if done < last:
            # A fit of its own for each size: the network takes any, a dataset has one.
            start = max(first, done)
            if config.ema_momentum and 0 < start == first:
                # Keras ends a fit by taking the averaged weights; a run that resumes here has not had that end.
                model.optimizer.finalize_variable_values(model.trainable_variables)
            draws = partial(_batches, train_examples, train_pixels, pictures, config, config.seed + start)
            model.fit(
                _dataset(draws, phase, config),
                validation_data=_validation_dataset(val_examples, val_pixels, phase, config),
                steps_per_epoch=steps,
                initial_epoch=start,
                epochs=last,
                shuffle=False,  # the batches are drawn at random already
                callbacks=[checkpoint, keras.callbacks.TensorBoard(run / "tensorboard")],
            )
        first = last
    if config.ema_momentum:
        model.optimizer.finalize_variable_values(model.trainable_variables)
    model.save_weights(run / WEIGHTS_FILE)
    if config.save_h5:
        model.save(run / H5_FILE)
    draw_curves(checkpoint.history, run / "curves.png")
    return run / WEIGHTS_FILE


def _claim(run: Path, config: TrainingConfig) -> None:
    run.mkdir(parents=True, exist_ok=True)
    if (run / "config.json").exists() and TrainingConfig.load(run) != config:
        raise ValueError(f"{run} holds a run with another configuration; give another folder")
    (run / "config.json").write_text(config.to_json())


def _captures(examples: Sequence[Example]) -> list[list[int]]:
    """Indices of the captures of each picture: an epoch shows one of them, drawn anew."""
    captures = defaultdict(list)
    for index, example in enumerate(examples):
        captures[example.capture_id].append(index)
    return list(captures.values())


def _optimizer(config: TrainingConfig, total_steps: int) -> keras.optimizers.Optimizer:
    rate: Any = config.learning_rate
    if config.schedule == "cosine":
        warmup = max(1, round(total_steps * config.warmup_share))
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, total_steps - warmup, warmup_target=config.learning_rate, warmup_steps=warmup
        )
    averaging = {"use_ema": True, "ema_momentum": config.ema_momentum} if config.ema_momentum else {}
    if config.optimizer == "adam":
        return keras.optimizers.Adam(rate, **averaging)
    return keras.optimizers.AdamW(rate, weight_decay=config.weight_decay, **averaging)


class _Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """Weights, optimizer state and history after every epoch, each by one rename."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self._run = run
        self.history: list[dict[str, float]] = []

    def restore(self, model: keras.Model, steps: int) -> int:
        """Load the last checkpoint, if any. Returns the number of whole epochs, of so many steps, that it has seen."""
        if not (self._run / CHECKPOINT_FILE).exists():
            return 0
        model.optimizer.build(model.trainable_variables)
        model.load_weights(self._run / CHECKPOINT_FILE)
        done = int(model.optimizer.iterations) // steps
        # The history is written first: an interruption in between leaves it one epoch ahead.
        self.history = json.loads((self._run / HISTORY_FILE).read_text())[:done]
        return done

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002  (Keras's signature)
        self.history.append({name: float(value) for name, value in (logs or {}).items()})
        text = json.dumps(self.history, indent=2) + "\n"
        (self._run / f"partial-{HISTORY_FILE}").write_text(text)
        (self._run / f"partial-{HISTORY_FILE}").rename(self._run / HISTORY_FILE)
        unfinished = self._run / f"partial-{CHECKPOINT_FILE}"
        self.model.save_weights(unfinished)
        unfinished.rename(self._run / CHECKPOINT_FILE)


Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]


def _batches(
    examples: Sequence[Example],
    pixels: npt.NDArray[np.uint8],
    pictures: list[list[int]],
    config: TrainingConfig,
    seed: int,
) -> Iterator[Batch]:
    """Endless batches: pictures in random order, one capture of each, malignant ones at the configured share."""
    rng = np.random.default_rng(seed)
    labels = binary_labels(examples)
    is_malignant = np.array([labels[captures[0]] == 1 for captures in pictures])
    streams = [_endless(np.flatnonzero(is_malignant), rng), _endless(np.flatnonzero(~is_malignant), rng)]
    everything = _endless(np.arange(len(pictures)), rng)
    while True:
        if config.malignant_share is None:
            chosen = [next(everything) for _ in range(config.batch_size)]
        else:
            malignant = rng.random(config.batch_size) < config.malignant_share
            chosen = [next(streams[0] if drawn else streams[1]) for drawn in malignant]
        indices = np.sort([rng.choice(pictures[picture]) for picture in chosen])
        yield pixels[indices], labels[indices, None].astype(np.float32)


def _endless(values: npt.NDArray[np.int64], rng: np.random.Generator) -> Iterator[int]:
    if not len(values):
        raise ValueError("the training split lacks a class that the configuration asks for")
    while True:
        yield from rng.permutation(values)


def _dataset(draws: Callable[[], Iterator[Batch]], phase: Phase, config: TrainingConfig) -> tf.data.Dataset:
    signature = (
        tf.TensorSpec((config.batch_size, *IMAGE_SHAPE), tf.uint8),
        tf.TensorSpec((config.batch_size, 1), tf.float32),
    )
    dataset = tf.data.Dataset.from_generator(draws, output_signature=signature)
    return dataset.map(
        lambda images, labels: (augment(images, phase.image_size, config.augmentation), labels), num_parallel_calls=2
    ).prefetch(2)


def _validation_dataset(
    examples: Sequence[Example], pixels: npt.NDArray[np.uint8], phase: Phase, config: TrainingConfig
) -> tf.data.Dataset:
    labels = binary_labels(examples)[:, None].astype(np.float32)

    def batches() -> Iterator[Batch]:
        for start in range(0, len(examples), config.batch_size):
            yield pixels[start : start + config.batch_size], labels[start : start + config.batch_size]

    signature = (tf.TensorSpec((None, *IMAGE_SHAPE), tf.uint8), tf.TensorSpec((None, 1), tf.float32))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    dataset = dataset.map(lambda images, targets: (resize(images, phase.image_size), targets)).prefetch(1)
    # Without it Keras takes the end of the first pass for the end of all data.
    return dataset.apply(tf.data.experimental.assert_cardinality(math.ceil(len(examples) / config.batch_size)))
