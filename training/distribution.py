"""The devices a run is trained on: one, all GPUs of a host, or those of several hosts of which worker 0 is the chief."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import tensorflow as tf

Strategy = Literal["single", "mirrored", "workers"]
"""One device; all GPUs of this host; all GPUs of the hosts in TF_CONFIG, of which worker 0 is the chief."""


def distribution_of(strategy: Strategy) -> tf.distribute.Strategy:
    """For one device TensorFlow's default, which does nothing: all devices are trained by the same code.

    Raises:
        ValueError: TF_CONFIG names no workers, or other tasks too.
    """
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


def is_chief(distribution: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes."""
    return distribution.cluster_resolver is None or distribution.cluster_resolver.task_id == 0


def wait_for_all(distribution: tf.distribute.Strategy) -> None:
    """Until every worker has come here."""
    if distribution.cluster_resolver is not None:
        on_replicas(lambda _: tf.distribute.get_replica_context().all_reduce("SUM", tf.ones([])), distribution)(None)


@contextmanager
def after_chief(distribution: tf.distribute.Strategy) -> Iterator[None]:
    """The chief first, then all others at a time: what it has written, they find."""
    if not is_chief(distribution):
        wait_for_all(distribution)
    yield
    if is_chief(distribution):
        wait_for_all(distribution)


def on_replicas(step: Callable[[Any], Any], distribution: tf.distribute.Strategy) -> Callable[[Any], None]:
    """The step as one graph that every replica runs on its part of a batch; what it returns is dropped."""

    @tf.function(autograph=False)
    def run(batch: Any) -> None:
        distribution.run(step, args=(batch,))

    return run
