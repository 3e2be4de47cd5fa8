"""Runs inside Triton, as `lesion` and as `lesion_metadata`: OpenVINO computes the version's SavedModel, its document is read.

OpenVINO reads only the signature `serving_default`, and no strings: hence two models.
"""

import os
import sys
import time
from pathlib import Path

# Triton runs the system's interpreter, without the environment that it was installed in.
sys.path.insert(0, os.environ["TRITON_PACKAGES"])

import numpy as np
import openvino
import triton_python_backend_utils as triton

VERSIONS = Path(os.environ["TRITON_VERSIONS"])
DELAY_S = float(os.environ["TRITON_DELAY_S"])
# Its default on processors with bfloat16 would compute the none score in it too, whose sums of squares need float32.
PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        version = VERSIONS / args["model_version"]
        if args["model_name"] == "lesion":
            model = openvino.Core().compile_model(version, "CPU", PRECISION)
            self._answer = lambda request: self._classify(model, request)
        else:
            document = np.array([(version / "assets.extra" / "metadata.json").read_bytes()], np.object_)
            self._answer = lambda _: [triton.Tensor("metadata", document)]

    def execute(self, requests: list) -> list:
        return [triton.InferenceResponse(self._answer(request)) for request in requests]

    def _classify(self, model: openvino.CompiledModel, request: object) -> list:
        time.sleep(DELAY_S)
        values = model(triton.get_input_tensor_by_name(request, "images").as_numpy())
        return [triton.Tensor(output.get_any_name(), values[output]) for output in model.outputs]
