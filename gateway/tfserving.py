"""Predictor over TensorFlow Serving's gRPC API, with our own trimmed messages."""

import math
import threading
import time
from collections.abc import Callable
from typing import Final, NoReturn

import grpc
import numpy as np
import numpy.typing as npt

from gateway.errors import (
    InvalidModelAnswer,
    ModelServerOverloaded,
    ModelServerTimeout,
    ModelServerUnavailable,
    PredictionError,
)
from gateway.predictor import Prediction
from serving.channel import PREDICT_METHOD, metadata_request, open_channel, predict_request, read_metadata_response
from serving.contract import (
    ACTIVATION_MAP_OUTPUT,
    CLASSES,
    IMAGE_SHAPE,
    MAP_SIZE,
    NONE_SCORE_OUTPUT,
    PROBABILITIES_OUTPUT,
)
from serving.metadata import MetadataError, ModelMetadata
from serving.wire import prediction_pb2 as wire

Call = Callable[..., wire.PredictResponse]

CHANNEL_OPTIONS: Final = (
    # A headless Service gives an address for each server: spread over all, and follow them as they come and go.
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
    # A server that died without a word is noticed within half a minute even when nobody calls.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # After a restart of the server the next request shall not wait for the default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

_ERRORS: Final[dict[grpc.StatusCode, type[PredictionError]]] = {
    grpc.StatusCode.UNAVAILABLE: ModelServerUnavailable,
    grpc.StatusCode.NOT_FOUND: ModelServerUnavailable,
    grpc.StatusCode.CANCELLED: ModelServerUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: ModelServerTimeout,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ModelServerOverloaded,
}
"""Any other code means that the two sides disagree on the contract."""

_QUEUE_FULL: Final = "queue to which this task was submitted is full"
_PROBABILITY_SUM_TOLERANCE: Final = 1e-3

_RECONNECT_WAIT_S: Final = 1.5
"""Before the retry. Longer than the longest back-off (gRPC adds up to a fifth at random), in which every call fails at once."""


class TFServingPredictor:
    """Asks for the version that carries a label; reads answers with the metadata of the version that gave them."""

    def __init__(self, target: str, label: str, timeout_s: float, credentials: grpc.ChannelCredentials | None = None) -> None:
        """Open the channel. Make one in each process, after it was forked: gRPC does not survive a fork.

        Args:
            target: host:port or dns:///name:port.
            label: of the version that is to answer.
            timeout_s: of one call, its retry included.
            credentials: of TLS; None for plain text.
        """
        self._label = label
        self._timeout_s = timeout_s
        self._channel = open_channel(target, credentials, CHANNEL_OPTIONS)
        self._call: Call = self._channel.unary_unary(
            PREDICT_METHOD,
            request_serializer=wire.PredictRequest.SerializeToString,
            response_deserializer=wire.PredictResponse.FromString,
        )
        self._metadata: dict[int, ModelMetadata] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def predict(self, image: npt.NDArray[np.uint8]) -> Prediction:
        """See `gateway.predictor.Predictor`."""
        if image.shape != IMAGE_SHAPE or image.dtype != np.uint8:
            raise ValueError(f"expected uint8 {IMAGE_SHAPE}, got {image.dtype} {image.shape}")
        response = self._predict(predict_request(self._label, image), self._timeout_s)
        return _read_prediction(response)

    def metadata(self, version: int) -> ModelMetadata:
        """See `gateway.predictor.Predictor`. Asked for once a version, then kept: a version never changes."""
        with self._lock:
            known = self._metadata.get(version)
        if known is not None:
            return known
        metadata = self._ask_metadata(metadata_request(version=version), self._timeout_s)
        with self._lock:
            self._metadata[version] = metadata
        return metadata

    def live_metadata(self, timeout_s: float | None = None) -> ModelMetadata:
        """See `gateway.predictor.Predictor`."""
        return self._ask_metadata(metadata_request(label=self._label), timeout_s or self._timeout_s)

    def _ask_metadata(self, request: wire.PredictRequest, timeout_s: float) -> ModelMetadata:
        try:
            return read_metadata_response(self._predict(request, timeout_s))
        except MetadataError as error:
            raise InvalidModelAnswer(str(error)) from error

    def _predict(self, request: wire.PredictRequest, timeout_s: float) -> wire.PredictResponse:
        """One call, and one retry when the server could not be reached and there is time left."""
        deadline = time.monotonic() + timeout_s
        try:
            return self._call(request, timeout=timeout_s)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE or _QUEUE_FULL in (error.details() or ""):
                _raise_mapped(error)
            if not self._reconnect(deadline - time.monotonic()):
                _raise_mapped(error)
        try:
            return self._call(request, timeout=max(deadline - time.monotonic(), 0.0))
        except grpc.RpcError as error:
            _raise_mapped(error)

    def _reconnect(self, remaining_s: float) -> bool:
        """Whether a server is connected, or comes back soon enough. Each process has its own channel and its own back-off."""
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=min(_RECONNECT_WAIT_S, max(remaining_s, 0.0)))
        except grpc.FutureTimeoutError:
            return False
        finally:
            ready.cancel()
        return True


def _raise_mapped(error: grpc.RpcError) -> NoReturn:
    if _QUEUE_FULL in (error.details() or ""):
        raise ModelServerOverloaded(error.details()) from error
    raise _ERRORS.get(error.code(), InvalidModelAnswer)(f"{error.code().name}: {error.details()}") from error


def _read_prediction(response: wire.PredictResponse) -> Prediction:
    """Check everything that is going to be shown: a NaN must not come out as benign.

    Raises:
        InvalidModelAnswer: what is wrong.
    """
    probabilities = _floats(response, PROBABILITIES_OUTPUT, (1, len(CLASSES)))
    none_score = _floats(response, NONE_SCORE_OUTPUT, (1,))
    activation_map = _floats(response, ACTIVATION_MAP_OUTPUT, (1, MAP_SIZE, MAP_SIZE))
    if min(probabilities) < 0 or not math.isclose(sum(probabilities), 1.0, abs_tol=_PROBABILITY_SUM_TOLERANCE):
        raise InvalidModelAnswer(f"{PROBABILITIES_OUTPUT} are no probabilities: {probabilities}")
    if response.model_spec.version.value <= 0:
        raise InvalidModelAnswer("the answer does not say which version gave it")
    return Prediction(
        malignant=probabilities[CLASSES.index("malignant")],
        none_score=none_score[0],
        activation_map=np.array(activation_map, np.float32).reshape(MAP_SIZE, MAP_SIZE),
        model_version=response.model_spec.version.value,
    )


def _floats(response: wire.PredictResponse, name: str, shape: tuple[int, ...]) -> list[float]:
    if name not in response.outputs:
        raise InvalidModelAnswer(f"the answer lacks {name}")
    tensor = response.outputs[name]
    given = tuple(dim.size for dim in tensor.tensor_shape.dim)
    values = list(tensor.float_val) or np.frombuffer(tensor.tensor_content, np.float32).tolist()
    if tensor.dtype != wire.DT_FLOAT or given != shape or len(values) != math.prod(shape):
        raise InvalidModelAnswer(f"{name} has dtype {tensor.dtype}, shape {given} and {len(values)} values, expected {shape}")
    if not all(map(math.isfinite, values)):
        raise InvalidModelAnswer(f"{name} is not finite")
    return values
