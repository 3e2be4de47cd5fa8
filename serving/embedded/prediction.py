"""PredictionService: Predict and GetModelMetadata."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import grpc
import numpy.typing as npt
import tensorflow as tf
from google.protobuf import any_pb2
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    model_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving import tracing
from serving.embedded import monitoring
from serving.embedded.batching import BatchScheduler, Outputs
from serving.embedded.catalogue import Catalogue
from serving.embedded.monitoring import Monitoring
from serving.embedded.servable import Servable, Tensors, read_inputs
from serving.embedded.status import ServingError, abort

SIGNATURE_FIELD = "signature_def"
PREDICT = "tensorflow.serving.PredictionService/Predict"
_FOREVER_S = 365 * 24 * 3600.0
"""A call without a deadline has some 292 years left, more than a lock can be asked to wait."""
_TYPED_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "bool": "bool_val",
    "object": "string_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
} | dict.fromkeys(("int8", "int16", "int32", "uint8", "uint16"), "int_val")
"""Where TensorProto keeps the values of a numpy type."""
_log = logging.getLogger(__name__)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]
    """Classify, Regress and MultiInference keep the base class's UNIMPLEMENTED."""

    def __init__(self, catalogue: Catalogue, scheduler: BatchScheduler | None, metrics: Monitoring) -> None:
        self._catalogue = catalogue
        self._scheduler = scheduler
        self._metrics = metrics

    def Predict(  # noqa: N802  (gRPC's name)
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Run a signature of a version."""
        started = time.perf_counter()
        name = request.model_spec.name
        with _traced(context), _counted(self._metrics, name, context):
            servable = self._resolve(request)
            signature, definition = servable.signature(request.model_spec.signature_name)
            inputs = read_inputs(request, definition)
            wanted = _wanted_outputs(request, definition)
            remaining_s = min(context.time_remaining(), _FOREVER_S)
            outputs = self._run(servable, signature, inputs, wanted, remaining_s)
            response = predict_pb2.PredictResponse(
                model_spec=model_pb2.ModelSpec(name=name, signature_name=signature),
                outputs={alias: _to_tensor(outputs[alias]) for alias in wanted},
            )
            response.model_spec.version.value = servable.version
            tracing.describe(None, {"dermserve.model_version": servable.version, "dermserve.signature": signature})
        elapsed = (time.perf_counter() - started) * 1e6
        self._metrics.observe(monitoring.REQUEST_LATENCY, elapsed, model_name=name, API="Predict", entrypoint="GRPC")
        return response

    def GetModelMetadata(  # noqa: N802  (gRPC's name)
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Signature definitions of a version."""
        try:
            return describe_signatures(self._resolve(request), request)
        except ServingError as error:
            abort(context, error)

    def _resolve(self, request: predict_pb2.PredictRequest | get_model_metadata_pb2.GetModelMetadataRequest) -> Servable:
        if not request.HasField("model_spec"):
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
        return self._catalogue.resolve(request.model_spec)

    def _run(self, servable: Servable, signature: str, inputs: Tensors, wanted: tuple[str, ...], remaining_s: float) -> Outputs:
        started = time.perf_counter()
        if self._scheduler is None:
            with tracing.span("run"):
                outputs = servable.run(signature, inputs)
        else:
            deadline = time.monotonic() + remaining_s
            # The caller is gone by then; the margin lets the queue's own answer through first.
            outputs = _wait_for(self._scheduler.submit(servable, signature, inputs, wanted, deadline), remaining_s + 1.0)
        elapsed = (time.perf_counter() - started) * 1e6
        self._metrics.observe(monitoring.RUNTIME_LATENCY, elapsed, model_name=servable.name, API="Predict", runtime="TF1")
        return outputs


def _wait_for(answer: "Future[Outputs]", timeout_s: float) -> Outputs:
    try:
        return answer.result(timeout_s)
    except FutureTimeoutError as error:
        if answer.running():
            raise ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from error
        # Nobody leaves the queue before its turn, as in the real server: it is refused then, and counted so.
        return answer.result()
    finally:
        # An error of the answer holds this frame, which would hold the answer.
        del answer


def describe_signatures(
    servable: Servable, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """The answer of GetModelMetadata.

    Raises:
        ServingError: no field or an unknown one is asked for.
    """
    if not request.metadata_field:
        raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field")
    for name in request.metadata_field:
        if name != SIGNATURE_FIELD:
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, f"Metadata field {name} is not supported")
    signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signature_defs)
    packed = any_pb2.Any()
    packed.Pack(signatures)
    response = get_model_metadata_pb2.GetModelMetadataResponse(
        model_spec=model_pb2.ModelSpec(name=servable.name), metadata={SIGNATURE_FIELD: packed}
    )
    response.model_spec.version.value = servable.version
    return response


def _wanted_outputs(request: predict_pb2.PredictRequest, definition: meta_graph_pb2.SignatureDef) -> tuple[str, ...]:
    available = sorted(definition.outputs)
    for position, alias in enumerate(request.output_filter):
        if alias not in definition.outputs:
            raise ServingError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{','.join(available)}}}.",
            )
        if alias in request.output_filter[:position]:
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, f"duplicate output tensor alias: {alias}")
    return tuple(sorted(request.output_filter)) or tuple(available)


def _to_tensor(value: npt.NDArray[Any]) -> tensor_pb2.TensorProto:
    """Typed fields such as float_val, the real server's default; TensorFlow's own function would write tensor_content."""
    field = _TYPED_FIELDS.get(value.dtype.name)
    if field is None:
        return tf.make_tensor_proto(value)
    tensor = tensor_pb2.TensorProto(dtype=tf.dtypes.as_dtype(value.dtype).as_datatype_enum)
    for size in value.shape:
        tensor.tensor_shape.dim.add(size=size)
    getattr(tensor, field).extend(value.ravel().tolist())
    return tensor


def _traced(context: grpc.ServicerContext) -> AbstractContextManager[None]:
    """The span of a call, under its caller's. Without a caller's there is none: a probe that nobody traces begins no trace."""
    traceparent = dict(context.invocation_metadata()).get(tracing.TRACEPARENT)
    return tracing.serve(PREDICT, traceparent) if isinstance(traceparent, str) else nullcontext()


@contextmanager
def _counted(metrics: Monitoring, name: str, context: grpc.ServicerContext) -> Iterator[None]:
    failure: ServingError | None = None
    try:
        yield
    except ServingError as error:
        # A new one: the traceback holds this frame and the request, pictures and all, until the collector comes by.
        failure = ServingError(error.code, error.message)
    except Exception as error:  # noqa: BLE001  (the edge of a call: gRPC would answer for us, uncounted)
        _log.exception("Predict failed")
        failure = ServingError(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")
    metrics.count(monitoring.REQUEST_COUNT, model_name=name, status=failure.code.name if failure else "OK")
    if failure:
        abort(context, failure)
