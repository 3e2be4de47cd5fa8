"""BentoML serving the released SavedModel, in an environment of its own: `bentoml serve scripts.bench.bentoml_service:Lesion`.

As its guides say: `batchable=True`, so that BentoML's adaptive batching chooses the batches and how long they gather. One
worker, for TensorFlow uses both cores from one process, and batches gather in one place; pictures of a batch are decoded in as
many threads as there are cores. The largest batch is Dermserve's. A service for the pixels before one for the network, the
other shape of its guides, was tried: with 16 callers requests were lost on the way between the two.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bentoml
import numpy as np
import tensorflow as tf

from scripts.bench.pixels import read_bytes


@bentoml.service(workers=1, traffic={"timeout": 120})
class Lesion:
    """The SavedModel behind HTTP."""

    def __init__(self) -> None:
        self._loaded = tf.saved_model.load(os.environ["BENCH_VERSION"])
        self._predict = self._loaded.signatures["serving_default"]
        self._decoding = ThreadPoolExecutor(os.cpu_count())

    @bentoml.api(batchable=True, max_batch_size=32)
    def classify(self, file: list[Path]) -> list[dict[str, float]]:
        """Uploaded pictures -> malignant and none score of each."""
        images = np.stack(list(self._decoding.map(lambda path: read_bytes(path.read_bytes()), file)))
        outputs = self._predict(images=tf.constant(images))
        pairs = zip(outputs["probabilities"].numpy()[:, 1], outputs["none_score"].numpy(), strict=True)
        return [{"malignant": float(malignant), "none_score": float(none_score)} for malignant, none_score in pairs]
