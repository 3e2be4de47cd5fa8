"""`python -m scripts.bench.ray_service VERSION PORT FOLDER`: Ray Serve serving the released SavedModel, in its own environment.

As its guides say: `serve.batch` makes the batches, in threads, so that the next one gathers meanwhile; the replica reserves
both cores, from which Ray sets the threads of TensorFlow; it may have more requests under way than a batch holds. Largest batch
and wait are Dermserve's. The picture is the request's whole body, which costs less than a form. No dashboard, no statistics
sent.
"""

import asyncio
import os
import signal
import sys
import threading

import numpy as np
import numpy.typing as npt
import ray
import tensorflow as tf
from ray import serve
from starlette.requests import Request

from scripts.bench.pixels import read_bytes

CORES = os.cpu_count() or 1


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": CORES}, max_ongoing_requests=128)
class Lesion:
    """The SavedModel behind HTTP."""

    def __init__(self, version: str) -> None:
        self._loaded = tf.saved_model.load(version)
        self._predict = self._loaded.signatures["serving_default"]

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.002, max_concurrent_batches=2)
    async def scores(self, images: list[npt.NDArray[np.uint8]]) -> list[dict[str, float]]:
        """Pictures -> malignant and none score of each."""
        outputs = await asyncio.to_thread(lambda: self._predict(images=tf.constant(np.stack(images))))
        pairs = zip(outputs["probabilities"].numpy()[:, 1], outputs["none_score"].numpy(), strict=True)
        return [{"malignant": float(malignant), "none_score": float(none_score)} for malignant, none_score in pairs]

    async def __call__(self, request: Request) -> dict[str, float]:
        """A picture's bytes -> its answer."""
        picture = await request.body()
        return await self.scores(await asyncio.to_thread(read_bytes, picture))


if __name__ == "__main__":
    ray.init(num_cpus=CORES, include_dashboard=False, _node_ip_address="127.0.0.1", _temp_dir=sys.argv[3])
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
    serve.run(Lesion.bind(sys.argv[1]))
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    serve.shutdown()
    ray.shutdown()
