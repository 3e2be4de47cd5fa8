"""Trains a run: phases of growing resolution, resumable after every epoch, with curves for TensorBoard and PNG."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from serving.contract import IMAGE_SHAPE
from training.augment import resize
from training.batches import NO_DIAGNOSIS, Batches
from training.config import TrainingConfig
from training.data import Example, evenly, load_examples
from training.distribution import Strategy, after_chief, distribution_of, is_chief, on_replicas, wait_for_all
from training.figures import draw_curves
from training.leaks import REPORT_FILE, write_leaks
from training.model import LOGIT_LAYER, add_diagnoses, backbone_of, build_classifier

WEIGHTS_FILE = "model.weights.h5"
CHECKPOINT_FILE = "checkpoint.weights.h5"
H5_FILE = "model.h5"
HISTORY_FILE = "history.json"

BATCH_NORM_BATCHES = 150
BATCH_NORM_MOMENTUM = 0.97

LEAKS_IMAGE_SIZE = 96


def train(config: TrainingConfig, run: Path, strategy: Strategy = "single") -> Path:
    """Train and leave weights, history and curves in the run's folder; call again to resume after the last whole epoch.

    A resumed run draws other pictures than one that was not interrupted would have drawn. It may resume on other devices: a
    batch has the same size, and the same pictures, however many replicas share it.

    Args:
        config: the resolved configuration; on resuming it must equal the one the run was started with, but may have another
            end where the rate does not depend on it.
        run: gets config.json, leaks.json, leaks.md, checkpoint.weights.h5, history.json, curves.png, tensorboard/ and
            model.weights.h5; decoded pictures are kept in cache/ beside it. Workers share both; only the chief writes.
        strategy: the devices. `workers` must be the first thing that the process does with TensorFlow.

    Returns:
        The file of the final (averaged) weights.

    Raises:
        ValueError: the folder holds a run with another configuration, or one that has gone on for longer; TF_CONFIG names no
            workers; or the devices cannot share a batch equally.
    """
    distribution = distribution_of(strategy)
    if config.batch_size % distribution.num_replicas_in_sync:
        raise ValueError(f"{distribution.num_replicas_in_sync} devices cannot share a batch of {config.batch_size} equally")
    chief = is_chief(distribution)
    with after_chief(distribution):
        _claim(run, config, chief)
        examples = load_examples(Path(config.data), config.validation_share, config.seed)
        data = Batches.load(examples, config, run.parent / "cache")
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(config.precision)

    with distribution.scope():
        classifier = build_classifier(config.weights, config.frozen_stages)
        if chief and not (run / REPORT_FILE).exists():
            _write_leaks(examples, classifier, config, run)
        model = add_diagnoses(classifier, len(data.diagnoses)) if data.diagnoses else classifier
        _compile(model, data)
        checkpoint = _Checkpoint(run)
        done = checkpoint.restore(model, data.steps)
        if done > config.epochs:
            raise ValueError(f"{run} has been trained for {done} epochs already")
    _fit(model, data, done, [checkpoint, keras.callbacks.TensorBoard(run / "tensorboard")] if chief else [], distribution)
    if config.ema_momentum:
        model.optimizer.finalize_variable_values(model.trainable_variables)
        batches = islice(data.batches(config.phases[-1], config.seed, distribution), min(BATCH_NORM_BATCHES, data.steps))
        _refresh_batch_norm(classifier, batches, distribution)
    if chief:
        classifier.save_weights(run / WEIGHTS_FILE)
        if config.save_h5:
            classifier.save(run / H5_FILE)
        draw_curves(checkpoint.history, run / "curves.png")
    if strategy == "workers":
        digest = hashlib.sha256(b"".join(weight.numpy().tobytes() for weight in classifier.weights)).hexdigest()
        print(f"weights of worker {distribution.cluster_resolver.task_id}: {digest}")
    wait_for_all(distribution)
    return run / WEIGHTS_FILE


def _claim(run: Path, config: TrainingConfig, chief: bool) -> None:
    run.mkdir(parents=True, exist_ok=True)
    if (run / "config.json").exists() and not config.continues(TrainingConfig.load(run)):
        raise ValueError(f"{run} holds a run with another configuration; give another folder")
    if chief:
        (run / "config.json").write_text(config.to_json())


def _write_leaks(examples: Sequence[Example], classifier: keras.Model, config: TrainingConfig, run: Path) -> None:
    """With the weights that the run starts from: those of ImageNet have not seen its pictures, those of an earlier run have."""
    network = keras.Model(classifier.inputs, classifier.get_layer("embedding").output)

    @tf.function(input_signature=[tf.TensorSpec((None, *IMAGE_SHAPE), tf.uint8)])
    def features(images: tf.Tensor) -> tf.Tensor:
        return network(resize(images, LEAKS_IMAGE_SIZE), training=False)

    splits = [[example for example in examples if example.split == split] for split in ("train", "val", "test")]
    chosen = [example for split in splits for example in evenly(split, config.max_examples)]
    data = Path(config.data)
    write_leaks(chosen, data.parent if data.is_file() else data, lambda images: features(images).numpy(), run)


def _compile(model: keras.Model, data: Batches) -> None:
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
    data: Batches,
    done: int,
    callbacks: list[keras.callbacks.Callback],
    distribution: tf.distribute.Strategy,
) -> None:
    """Train and validate the epochs that are not done.

    Keras's own `fit` cannot, between workers: https://github.com/keras-team/keras/issues/20585.
    """
    config = data.config
    calls = keras.callbacks.CallbackList(
        callbacks, add_progbar=is_chief(distribution), model=model, epochs=config.epochs, steps=data.steps, verbose=1
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
        train_step, test_step = (on_replicas(step, distribution) for step in (model.train_step, model.test_step))
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


def _refresh_batch_norm(model: keras.Model, batches: Iterator[Any], distribution: tf.distribute.Strategy) -> None:
    """Estimate BatchNorm's statistics anew after weights were averaged (Izmailov et al., arXiv 1803.05407, section 3.2).

    The first batch replaces what stands there, so that nothing of it is left in a short run either.
    """
    for momentum, some in ((0.0, islice(batches, 1)), (BATCH_NORM_MOMENTUM, batches)):
        for layer in _batch_norms(model):
            layer.momentum = momentum
        # Made anew, for the momentum is a constant of the graph.
        forward = on_replicas(lambda batch: model(batch[0], training=True), distribution)
        for batch in some:
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
