"""`python -m tests.paced_server PORT SLOTS SECONDS`: a model server of known capacity, SLOTS / SECONDS pictures a second.

It sleeps instead of computing, so that what is measured is the gateway's doing and not the machine's. Like a real one, it works
on pictures whose caller has given up. Metadata it gives at once.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from serving.channel import PREDICT_METHOD
from serving.contract import METADATA_SIGNATURE
from serving.wire import prediction_pb2 as wire
from tests.metadata import METADATA

CALLERS = 2_000


class PacedServer:
    """Answers so many pictures at a time, each after some seconds, and none while it is held.

    Attributes:
        pictures: that have come in.
        calls: that they have come in by.
        port: it listens on.
    """

    def __init__(self, slots: int = 1_000, seconds: float = 0.0) -> None:
        self.pictures = 0
        self.calls = 0
        self.port = 0
        self.go = threading.Event()
        self.go.set()
        self._slots = threading.Semaphore(slots)
        self._seconds = seconds

    def predict(self, request: wire.PredictRequest, context: grpc.ServicerContext) -> wire.PredictResponse:
        response = wire.PredictResponse()
        response.model_spec.version.value = METADATA.version
        if request.model_spec.signature_name == METADATA_SIGNATURE:
            response.outputs["metadata"].dtype = wire.DT_STRING
            response.outputs["metadata"].string_val.append(METADATA.to_json().encode())
            return response
        count = request.inputs["images"].tensor_shape.dim[0].size
        self.pictures += count
        self.calls += 1
        with self._slots:
            self.go.wait(60)
            time.sleep(self._seconds)
        for name, shape, values in (
            ("probabilities", (count, 2), (0.9, 0.1) * count),
            ("none_score", (count,), (0.0,) * count),
            ("activation_map", (count, 7, 7), (0.0,) * 49 * count),
        ):
            dims = [wire.TensorShapeProto.Dim(size=size) for size in shape]
            tensor = wire.TensorProto(dtype=wire.DT_FLOAT, tensor_shape=wire.TensorShapeProto(dim=dims), float_val=values)
            response.outputs[name].CopyFrom(tensor)
        return response


@contextmanager
def serving(behaviour: PacedServer, port: int = 0) -> Iterator[PacedServer]:
    method = grpc.unary_unary_rpc_method_handler(
        behaviour.predict, wire.PredictRequest.FromString, wire.PredictResponse.SerializeToString
    )
    _, service, name = PREDICT_METHOD.split("/")
    running = grpc.server(ThreadPoolExecutor(CALLERS))
    running.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {name: method})])
    behaviour.port = running.add_insecure_port(f"127.0.0.1:{port}")
    running.start()
    try:
        yield behaviour
    finally:
        behaviour.go.set()
        running.stop(0).wait()


if __name__ == "__main__":
    # Without an orderly end: after an overload it would first answer everything that nobody waits for.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with serving(PacedServer(int(sys.argv[2]), float(sys.argv[3])), int(sys.argv[1])):
        signal.pause()
