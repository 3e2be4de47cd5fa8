"""Batches that somebody else sends the model server, beside the gateway."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
import numpy as np

from serving.channel import PREDICT_METHOD, open_channel, predict_batch_request
from serving.contract import ALLOWED_BATCH_SIZES, IMAGE_SHAPE, STABLE_LABEL
from serving.wire import prediction_pb2 as wire

LARGEST_BATCH = ALLOWED_BATCH_SIZES[-1]

FLOOD_CALLS = 16
"""Under way at once, each as large as the largest batch: more than batch threads and queue hold."""

REFUSED_S = 0.01
"""Until they try again."""

PASSES = 3
"""Over all sizes. One was enough whenever the model server had the processors for itself; chance has a part in it."""


def flood(port: int, seconds: float) -> None:
    """Large batches without a pause, to a model server on this port."""
    with _client(port) as classify:
        _flood(classify, seconds)


def fill_pool(port: int, seconds: float) -> None:
    """Batches of each size, and floods of the largest for so long, until the model server's memory is as large as it will be.

    oneDNN keeps what it prepares for a size, and TensorFlow's pool grows to what two batches at once have ever needed. Left to
    chance, either comes late and looks like a leak.
    """
    with _client(port) as classify:
        for _ in range(PASSES):
            _ask_sizes(classify)
            _flood(classify, seconds)


def _ask_sizes(classify: Callable[[int], None]) -> None:
    """Each from two callers. What both have under way is too much for one batch, so that nothing is put together."""

    def ask(sizes: Sequence[int]) -> None:
        for pictures in sizes:
            classify(pictures)

    rising = range(1, LARGEST_BATCH + 1)
    _in_threads(partial(ask, rising), partial(ask, rising[::-1]))


def _flood(classify: Callable[[int], None], seconds: float) -> None:
    until = time.monotonic() + seconds

    def ask() -> None:
        while time.monotonic() < until:
            try:
                classify(LARGEST_BATCH)
            except grpc.RpcError:
                time.sleep(REFUSED_S)

    _in_threads(*[ask] * FLOOD_CALLS)


@contextmanager
def _client(port: int) -> Iterator[Callable[[int], None]]:
    """A function that has so many black pictures classified in one call, over a channel of its own."""
    with open_channel(f"127.0.0.1:{port}", None, (("grpc.use_local_subchannel_pool", 1),)) as channel:
        call: Any = channel.unary_unary(PREDICT_METHOD, wire.PredictRequest.SerializeToString, wire.PredictResponse.FromString)
        largest = np.zeros((LARGEST_BATCH, *IMAGE_SHAPE), np.uint8)
        yield lambda pictures: call(predict_batch_request(STABLE_LABEL, largest[:pictures]), timeout=60)


def _in_threads(*work: Callable[[], None]) -> None:
    """At once; what fails is raised here."""
    with ThreadPoolExecutor(len(work)) as threads:
        for done in [threads.submit(one) for one in work]:
            done.result()
