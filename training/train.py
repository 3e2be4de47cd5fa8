"""Trains a run: phases of growing resolution, resumable after every epoch, with curves for TensorBoard and PNG."""

import dataclasses
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from serving.contract import IMAGE_SHAPE
from training.augment import augment, resize
from training.config import Phase, TrainingConfig
from training.data import Example, binary_labels, evenly, load_examples, load_pixels, select
from training.figures import draw_curves
from training.leaks import REPORT_FILE, write_leaks
from training.model import LOGIT_LAYER, add_diagnoses, backbone_of, build_classifier

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
Targets = npt.NDArray[np.float32] | tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]
"""Malignant or not [N, 1]; with diagnoses, their numbers [N, 1] too."""

Strategy = Literal["single", "mirrored", "workers"]
"""One device; all GPUs of this host; all GPUs of the hosts in TF_CONFIG, of which worker 0 is the chief."""

WEIGHTS_FILE = "model.weights.h5"
CHECKPOINT_FILE = "checkpoint.weights.h5"
H5_FILE = "model.h5"
HISTORY_FILE = "history.json"

NO_DIAGNOSIS = -1
"""Of a validation picture whose diagnosis the training split lacks: left out of the loss."""

BATCH_NORM_BATCHES = 150
BATCH_NORM_MOMENTUM = 0.97

LEAKS_IMAGE_SIZE = 96


def train(config: TrainingConfig, run: Path, strategy: Strategy = "single") -> Path:
    """Train and leave weights, history and curves in the run's folder; call again to resume after the last whole epoch.

    A resumed run draws other pictures than one that was not interrupted would have drawn. It may resume on other devices: a
    batch has the same size, and the same pictures, however many replicas share it.

    Args:
        config: the resolved configuration; on resuming it must equal the one the run was started with.
        run: gets config.json, leaks.json, leaks.md, checkpoint.weights.h5, history.json, curves.png, tensorboard/ and
            model.weights.h5; decoded pictures are kept in cache/ beside it. Workers share both; only the chief writes.
        strategy: the devices. `workers` must be the first thing that the process does with TensorFlow.

    Returns:
        The file of the final (averaged) weights.

    Raises:
        ValueError: the folder holds a run with another configuration; TF_CONFIG names no workers; or the devices cannot share
            a batch equally.
    """
    distribution = _distribution(strategy)
    if config.batch_size % distribution.num_replicas_in_sync:
        raise ValueError(f"{distribution.num_replicas_in_sync} devices cannot share a batch of {config.batch_size} equally")
    is_chief = _is_chief(distribution)
    with _after_chief(distribution):
        _claim(run, config, is_chief)
        examples = load_examples(Path(config.data), config.validation_share, config.seed)
        data = _Data.load(examples, config, run.parent / "cache")
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(config.precision)

    with distribution.scope():
        classifier = build_classifier(config.weights, config.frozen_stages)
        if is_chief and not (run / REPORT_FILE).exists():
            _write_leaks(examples, classifier, config, run)
        model = add_diagnoses(classifier, len(data.diagnoses)) if data.diagnoses else classifier
        _compile(model, data)
        checkpoint = _Checkpoint(run)
        done = checkpoint.restore(model, data.steps)
    _fit(model, data, done, [checkpoint, keras.callbacks.TensorBoard(run / "tensorboard")] if is_chief else [], distribution)
    if config.ema_momentum:
        model.optimizer.finalize_variable_values(model.trainable_variables)
        batches = islice(data.batches(config.phases[-1], config.seed, distribution), min(BATCH_NORM_BATCHES, data.steps))
        _refresh_batch_norm(classifier, batches, distribution)
    if is_chief:
        classifier.save_weights(run / WEIGHTS_FILE)
        if config.save_h5:
            classifier.save(run / H5_FILE)
        draw_curves(checkpoint.history, run / "curves.png")
    if strategy == "workers":
        digest = hashlib.sha256(b"".join(weight.numpy().tobytes() for weight in classifier.weights)).hexdigest()
        print(f"weights of worker {distribution.cluster_resolver.task_id}: {digest}")
    _wait_for_all(distribution)
    return run / WEIGHTS_FILE


def _distribution(strategy: Strategy) -> tf.distribute.Strategy:
    """For one device TensorFlow's default, which does nothing: all devices are trained by the same code."""
    if strategy == "single":
        return tf.distribute.get_strategy()
    if strategy == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    jobs = cluster.cluster_spec().as_dict()
    if list(jobs) != ["worker"]:
        raise ValueError(f"TF_CONFIG must name the addresses of workers, and no other tasks, but names {jobs}")
    return tf.distribute.MultiWorkerMirroredStrategy(cluster)


def _is_chief(distribution: tf.distribute.Strategy) -> bool:
    return distribution.cluster_resolver is None or distribution.cluster_resolver.task_id == 0


def _wait_for_all(distribution: tf.distribute.Strategy) -> None:
    """Until every worker has come here."""
    if distribution.cluster_resolver is not None:
        _on_replicas(lambda _: tf.distribute.get_replica_context().all_reduce("SUM", tf.ones([])), distribution)(None)


@contextmanager
def _after_chief(distribution: tf.distribute.Strategy) -> Iterator[None]:
    """The chief first, then all others at a time: what it has written, they find."""
    if not _is_chief(distribution):
        _wait_for_all(distribution)
    yield
    if _is_chief(distribution):
        _wait_for_all(distribution)


def _claim(run: Path, config: TrainingConfig, is_chief: bool) -> None:
    run.mkdir(parents=True, exist_ok=True)
    if (run / "config.json").exists() and TrainingConfig.load(run) != config:
        raise ValueError(f"{run} holds a run with another configuration; give another folder")
    if is_chief:
        (run / "config.json").write_text(config.to_json())


def _write_leaks(examples: Sequence[Example], classifier: keras.Model, config: TrainingConfig, run: Path) -> None:
    """With the weights that the run starts from: they have not seen its pictures."""
    network = keras.Model(classifier.inputs, classifier.get_layer("embedding").output)

    @tf.function(input_signature=[tf.TensorSpec((None, *IMAGE_SHAPE), tf.uint8)])
    def features(images: tf.Tensor) -> tf.Tensor:
        return network(resize(images, LEAKS_IMAGE_SIZE), training=False)

    splits = [[example for example in examples if example.split == split] for split in ("train", "val", "test")]
    chosen = [example for split in splits for example in evenly(split, config.max_examples)]
    data = Path(config.data)
    write_leaks(chosen, data.parent if data.is_file() else data, lambda images: features(images).numpy(), run)


def _compile(model: keras.Model, data: "_Data") -> None:
    config = data.config
    metrics = [
        keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy"),
        keras.metrics.AUC(from_logits=True, name="auc"),
    ]
    losses: list[keras.losses.Loss] = [keras.losses.BinaryCrossentropy(from_logits=True)]
    if data.diagnoses:
        losses.append(keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=NO_DIAGNOSIS))
    model.compile(
        optimizer=_optimizer(config, data.steps * config.epochs),
        loss=losses,
        loss_weights=[1.0, config.diagnosis_weight][: len(losses)],
        metrics=[metrics, []][: len(losses)],
    )
    # Keras would make their variables at the first step, where it is too late to make them for every replica.
    targets = data.targets(data.train)(np.arange(1))
    outputs = [np.zeros((1, output.shape[-1]), np.float32) for output in model.outputs]
    predictions = outputs if data.diagnoses else outputs[0]
    model.compute_loss(y=targets, y_pred=predictions)
    model.compute_metrics(None, targets, predictions)
    model.reset_metrics()
    model.optimizer.build(model.trainable_variables)


def _fit(
    model: keras.Model,
    data: "_Data",
    done: int,
    callbacks: list[keras.callbacks.Callback],
    distribution: tf.distribute.Strategy,
) -> None:
    """Train and validate the epochs that are not done.

    Keras's own `fit` cannot, between workers: https://github.com/keras-team/keras/issues/20585.
    """
    config = data.config
    calls = keras.callbacks.CallbackList(
        callbacks, add_progbar=_is_chief(distribution), model=model, epochs=config.epochs, steps=data.steps, verbose=1
    )
    calls.on_train_begin()
    firsts = accumulate((phase.epochs for phase in config.phases), initial=0)
    for phase, first in zip(config.phases, firsts, strict=False):
        epochs = range(max(first, done), first + phase.epochs)
        if not epochs:
            continue
        if config.ema_momentum and 0 < epochs.start == first:
            # Every phase but the first begins with the averaged weights.
            model.optimizer.finalize_variable_values(model.trainable_variables)
        batches = iter(data.batches(phase, config.seed + epochs.start, distribution))
        validation = data.validation(phase, distribution)
        # Made anew for each size: the network takes any, but a step that knows its size is faster.
        train_step, test_step = (_on_replicas(step, distribution) for step in (model.train_step, model.test_step))
        for epoch in epochs:
            calls.on_epoch_begin(epoch)
            for step in range(data.steps):
                calls.on_train_batch_begin(step)
                train_step(next(batches))
                calls.on_train_batch_end(step)
            figures = _take_figures(model)
            _average_batch_norm(model, distribution)
            calls.on_test_begin()
            for batch in validation:
                test_step(batch)
            validated = _take_figures(model)
            calls.on_test_end(validated)
            calls.on_epoch_end(epoch, figures | {f"val_{name}": figure for name, figure in validated.items()})
    calls.on_train_end()


def _on_replicas(step: Callable[[Any], Any], distribution: tf.distribute.Strategy) -> Callable[[Any], None]:
    @tf.function(autograph=False)
    def run(batch: Any) -> None:
        distribution.run(step, args=(batch,))

    return run


def _take_figures(model: keras.Model) -> dict[str, float]:
    """Losses and metrics since they were last taken, of all replicas."""
    figures = {name: float(figure) for name, figure in model.get_metrics_result().items()}
    model.reset_metrics()
    return figures


def _average_batch_norm(model: keras.Model, distribution: tf.distribute.Strategy) -> None:
    """Let replicas share BatchNorm's statistics: Keras 3 lets each keep those of its own pictures."""
    if distribution.num_replicas_in_sync == 1:
        return
    values = [value.value for layer in _batch_norms(model) for value in (layer.moving_mean, layer.moving_variance)]

    def average() -> None:
        means = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, [tf.identity(v) for v in values])
        for value, mean in zip(values, means, strict=True):
            value.assign(mean)

    tf.function(lambda: distribution.run(average), autograph=False)()


def _refresh_batch_norm(model: keras.Model, batches: Iterable[Any], distribution: tf.distribute.Strategy) -> None:
    """Estimate BatchNorm's statistics anew after weights were averaged (Izmailov et al., arXiv 1803.05407, section 3.2)."""
    for layer in _batch_norms(model):
        layer.momentum = BATCH_NORM_MOMENTUM
    forward = _on_replicas(lambda batch: model(batch[0], training=True), distribution)
    for batch in batches:
        forward(batch)
    _average_batch_norm(model, distribution)


def _batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in backbone_of(model).layers if isinstance(layer, keras.layers.BatchNormalization)]


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
        model.load_weights(self._run / CHECKPOINT_FILE)
        done = int(model.optimizer.iterations.numpy()) // steps
        # The history is written first: an interruption in between leaves it one epoch ahead.
        self.history = json.loads((self._run / HISTORY_FILE).read_text())[:done]
        return done

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002  (Keras's signature)
        self.history.append(_of_malignant(logs or {}))
        text = json.dumps(self.history, indent=2) + "\n"
        (self._run / f"partial-{HISTORY_FILE}").write_text(text)
        (self._run / f"partial-{HISTORY_FILE}").rename(self._run / HISTORY_FILE)
        unfinished = self._run / f"partial-{CHECKPOINT_FILE}"
        self.model.save_weights(unfinished)
        unfinished.rename(self._run / CHECKPOINT_FILE)


def _of_malignant(logs: Mapping[str, float]) -> dict[str, float]:
    """Keras names figures after the head where there are two; the curves show the exported head's."""
    return {name: float(value) for name, value in logs.items()} | {
        name.replace(f"{LOGIT_LAYER}_", ""): float(value) for name, value in logs.items() if f"{LOGIT_LAYER}_" in name
    }


@dataclasses.dataclass(frozen=True)
class _Data:
    """What a run trains and validates on: examples with their pixels [N, 224, 224, 3]."""

    config: TrainingConfig
    train: Sequence[Example]
    train_pixels: Pixels
    val: Sequence[Example]
    val_pixels: Pixels

    @classmethod
    def load(cls, examples: Sequence[Example], config: TrainingConfig, cache: Path) -> "_Data":
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
            dataset = self._read(self.train, self.train_pixels, lambda: self.draws(seed), size, context)
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
            dataset = self._read(self.val, self.val_pixels, draws, None, context)
            return dataset.map(lambda images, targets: (resize(images, phase.image_size), targets)).prefetch(1)

        return distribution.distribute_datasets_from_function(of_worker)

    def _read(
        self,
        examples: Sequence[Example],
        pixels: Pixels,
        draws: Callable[[], Iterator[Rows]],
        size: int | None,
        context: tf.distribute.InputContext,
    ) -> tf.data.Dataset:
        """Of each batch of rows, the parts of the replicas that a worker feeds, one after the other.

        `distribute_datasets_from_function` shards nothing itself.
        """
        targets = self.targets(examples)
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
