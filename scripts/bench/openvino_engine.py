"""`python -m scripts.bench.openvino_engine VERSION PRECISION`: OpenVINO in process, a ceiling of this processor.

It reads the released SavedModel as it is. PRECISION f32 computes all of it in float32; bf16 is what it would choose here, and
then the none score's sums of squares are bfloat16 too (docs/open-inference.md), which the check of the answers finds. One
caller gets OpenVINO's LATENCY hint, both cores for one picture; more get THROUGHPUT: as many streams as OpenVINO sees fit, and
each caller waits for one of so many requests as OpenVINO calls optimal.
"""

import queue
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino

from scripts.bench.in_process import Network, serve
from scripts.bench.tolerance import Answer
from serving.contract import NONE_SCORE_OUTPUT, PROBABILITIES_OUTPUT


def load(version: Path, precision: str, callers: int) -> Network:
    """Compile, and make the requests."""
    hints = {"PERFORMANCE_HINT": "LATENCY" if callers == 1 else "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(version, "CPU", hints)
    requests: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()
    for _ in range(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")):
        requests.put(compiled.create_infer_request())

    def network(images: npt.NDArray[np.uint8]) -> Answer:
        request = requests.get()
        try:
            outputs = {output.get_any_name(): values for output, values in request.infer(images).items()}
            return Answer(float(outputs[PROBABILITIES_OUTPUT][0, 1]), float(outputs[NONE_SCORE_OUTPUT].ravel()[0]))
        finally:
            requests.put(request)

    return network


if __name__ == "__main__":
    serve(lambda callers: load(Path(sys.argv[1]), sys.argv[2], callers))
