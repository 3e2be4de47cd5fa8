"""Predictor over TensorFlow Serving's gRPC API, with our own trimmed messages."""

from collections.abc import Sequence

import grpc
import numpy as np
import numpy.typing as npt

from gateway.errors import InvalidModelAnswer
from gateway.model_channel import ModelChannel
from gateway.predictor import OUTPUT_SHAPES, KnownMetadata, Prediction, check_image, read_prediction
from serving.channel import PREDICT_METHOD, metadata_request, predict_request, read_metadata_response
from serving.metadata import MetadataError, ModelMetadata
from serving.wire import prediction_pb2 as wire


class TFServingPredictor:
    """Asks for the version that carries a label; reads answers with the metadata of the version that gave them."""

    def __init__(self, target: str, label: str, timeout_s: float, credentials: grpc.ChannelCredentials | None = None) -> None:
        """Open the channel. Make one in each process, after it was forked.

        Args:
            target: host:port or dns:///name:port.
            label: of the version that is to answer.
            timeout_s: of one call, its retry included.
            credentials: of TLS; None for plain text.
        """
        self._label = label
        self._timeout_s = timeout_s
        self._channel = ModelChannel(target, credentials, label)
        self._predict = self._channel.method(PREDICT_METHOD, wire.PredictResponse)
        self._probe = self._channel.method(PREDICT_METHOD, wire.PredictResponse, is_probe=True)
        self._known = KnownMetadata(lambda version: _read_metadata(self._predict(metadata_request(version=version), timeout_s)))

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def predict(self, image: npt.NDArray[np.uint8]) -> Prediction:
        """See `gateway.predictor.Predictor`."""
        check_image(image)
        return _read_response(self._predict(predict_request(self._label, image), self._timeout_s))

    def metadata(self, version: int) -> ModelMetadata:
        """See `gateway.predictor.Predictor`."""
        return self._known.of(version)

    def live_metadata(self, timeout_s: float | None = None) -> ModelMetadata:
        """See `gateway.predictor.Predictor`."""
        return _read_metadata(self._probe(metadata_request(label=self._label), timeout_s or self._timeout_s))


def _read_metadata(response: wire.PredictResponse) -> ModelMetadata:
    try:
        return read_metadata_response(response)
    except MetadataError as error:
        raise InvalidModelAnswer(str(error)) from error


def _read_response(response: wire.PredictResponse) -> Prediction:
    outputs = {name: _floats(name, tensor) for name, tensor in response.outputs.items() if name in OUTPUT_SHAPES}
    return read_prediction(outputs, response.model_spec.version.value)


def _floats(name: str, tensor: wire.TensorProto) -> Sequence[float]:
    given = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.dtype != wire.DT_FLOAT or given != OUTPUT_SHAPES[name]:
        raise InvalidModelAnswer(f"{name} has dtype {tensor.dtype} and shape {given}, expected floats {OUTPUT_SHAPES[name]}")
    return list(tensor.float_val) or np.frombuffer(tensor.tensor_content, np.float32).tolist()
