"""`python -m scripts.bench.onnx_engine FILE`: ONNX Runtime in process, a ceiling of this processor.

The graph is onnx_model.py's. One caller gets ONNX Runtime's default, both cores for one picture. More callers get one thread
for each run, and as many runs at a time as there are cores.
"""

import os
import sys
import threading

import numpy as np
import numpy.typing as npt
import onnxruntime

from scripts.bench.in_process import Network, serve
from scripts.bench.tolerance import Answer
from serving.contract import IMAGES_INPUT, NONE_SCORE_OUTPUT, PROBABILITIES_OUTPUT

CORES = os.cpu_count() or 1


def load(path: str, callers: int) -> Network:
    """Make the session."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES if callers == 1 else 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    turn = threading.Semaphore(1 if callers == 1 else CORES)

    def network(images: npt.NDArray[np.uint8]) -> Answer:
        with turn:
            probabilities, none_score = session.run([PROBABILITIES_OUTPUT, NONE_SCORE_OUTPUT], {IMAGES_INPUT: images})
        return Answer(float(probabilities[0, 1]), float(none_score[0]))

    return network


if __name__ == "__main__":
    serve(lambda callers: load(sys.argv[1], callers))
