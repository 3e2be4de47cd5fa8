"""Batches of a run: which pictures each replica sees, augmented for training, as they are for validation."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from serving.contract import IMAGE_SHAPE
from training.augment import augment, resize
from training.config import Phase, TrainingConfig
from training.data import Example, binary_labels, evenly, load_pixels, select

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Targets = Labels | tuple[Labels, npt.NDArray[np.int32]]
"""Malignant or not [N, 1]; with diagnoses, their numbers [N, 1] too."""

NO_DIAGNOSIS = -1
"""Of a validation picture whose diagnosis the training split lacks: left out of the loss."""


@dataclasses.dataclass(frozen=True)
class Batches:
    """What a run trains and validates on: examples with their pixels [N, 224, 224, 3]."""

    config: TrainingConfig
    train: Sequence[Example]
    train_pixels: Pixels
    val: Sequence[Example]
    val_pixels: Pixels

    @classmethod
    def load(cls, examples: Sequence[Example], config: TrainingConfig, cache: Path) -> "Batches":
        """Take the training and validation pictures that the configuration asks for, decoded once into the cache."""
        train = evenly(select(examples, "train"), config.max_examples)
        val = evenly(select(examples, "val"), config.max_epoch_validation_examples)
        return cls(config, train, load_pixels(train, cache), val, load_pixels(val, cache))

    @cached_property
    def diagnoses(self) -> list[str]:
        """What the second head tells apart; empty without one."""
        return sorted({example.dx for example in self.train}) if self.config.diagnosis_weight else []

    @cached_property
    def captures(self) -> list[list[int]]:
        """Rows of the captures of each training picture: an epoch shows one of them, drawn anew."""
        captures = defaultdict(list)
        for row, example in enumerate(self.train):
            captures[example.capture_id].append(row)
        return list(captures.values())

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return self.config.steps_per_epoch or math.ceil(len(self.captures) / self.config.batch_size)

    def targets(self, examples: Sequence[Example]) -> Callable[[Rows], Targets]:
        """Rows of these examples -> their targets."""
        labels = binary_labels(examples)[:, None].astype(np.float32)
        if not self.diagnoses:
            return lambda rows: labels[rows]
        known = {diagnosis: number for number, diagnosis in enumerate(self.diagnoses)}
        numbers = np.array([[known.get(example.dx, NO_DIAGNOSIS)] for example in examples], np.int32)
        return lambda rows: (labels[rows], numbers[rows])

    def draws(self, seed: int) -> Iterator[Rows]:
        """Endless batches of rows: pictures in random order, one capture of each, malignant ones at the configured share."""
        rng = np.random.default_rng(seed)
        labels = binary_labels(self.train)
        is_malignant = np.array([labels[captures[0]] == 1 for captures in self.captures])
        streams = [_endless(np.flatnonzero(is_malignant), rng), _endless(np.flatnonzero(~is_malignant), rng)]
        everything = _endless(np.arange(len(self.captures)), rng)
        while True:
            if self.config.malignant_share is None:
                chosen = [next(everything) for _ in range(self.config.batch_size)]
            else:
                malignant = rng.random(self.config.batch_size) < self.config.malignant_share
                chosen = [next(streams[0] if drawn else streams[1]) for drawn in malignant]
            yield np.sort([rng.choice(self.captures[picture]) for picture in chosen])

    def batches(self, phase: Phase, seed: int, distribution: tf.distribute.Strategy) -> tf.distribute.DistributedDataset:
        """Endless augmented batches. Every worker draws the rows of all replicas, from one seed, and reads those of its own."""

        def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
            size = self.config.batch_size // context.num_replicas_in_sync
            dataset = self._read(self.train_pixels, self.targets(self.train), lambda: self.draws(seed), size, context)
            # Known to be endless, it is not asked before every step whether a worker has run out of batches.
            dataset = dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

            def change(number: tf.Tensor, batch: tuple[tf.Tensor, Any]) -> tuple[tf.Tensor, Any]:
                images, targets = batch
                # No two parts have the same number, neither of one worker nor of two.
                number = number * context.num_input_pipelines + context.input_pipeline_id
                seeds = tf.stack([tf.cast(seed, tf.int64), number])
                return augment(images, phase.image_size, phase.augmentation, seeds), targets

            return dataset.enumerate().map(change, num_parallel_calls=2).prefetch(2)

        return distribution.distribute_datasets_from_function(of_worker)

    def validation(self, phase: Phase, distribution: tf.distribute.Strategy) -> tf.distribute.DistributedDataset:
        """The validation pictures once, but for the few that replicas cannot share equally: none may have an empty batch."""
        count = len(self.val) - len(self.val) % distribution.num_replicas_in_sync

        def draws() -> Iterator[Rows]:
            for start in range(0, count, self.config.batch_size):
                yield np.arange(start, min(start + self.config.batch_size, count))

        def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
            dataset = self._read(self.val_pixels, self.targets(self.val), draws, None, context)
            return dataset.map(lambda images, targets: (resize(images, phase.image_size), targets)).prefetch(1)

        return distribution.distribute_datasets_from_function(of_worker)

    def _read(
        self,
        pixels: Pixels,
        targets: Callable[[Rows], Targets],
        draws: Callable[[], Iterator[Rows]],
        size: int | None,
        context: tf.distribute.InputContext,
    ) -> tf.data.Dataset:
        """Of each batch of rows, the parts of the replicas that a worker feeds, one after the other.

        `distribute_datasets_from_function` shards nothing itself.
        """
        replicas = context.num_replicas_in_sync
        local = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local

        def parts() -> Iterator[tuple[Pixels, Targets]]:
            for rows in draws():
                for replica in range(first, first + local):
                    part = rows[replica::replicas]
                    yield pixels[part], targets(part)

        labels = tf.TensorSpec((size, 1), tf.float32)
        signature = (
            tf.TensorSpec((size, *IMAGE_SHAPE), tf.uint8),
            (labels, tf.TensorSpec((size, 1), tf.int32)) if self.diagnoses else labels,
        )
        return tf.data.Dataset.from_generator(parts, output_signature=signature)


def _endless(values: Rows, rng: np.random.Generator) -> Iterator[int]:
    if not len(values):
        raise ValueError("the training split lacks a class that the configuration asks for")
    while True:
        yield from rng.permutation(values)
