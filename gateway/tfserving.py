"""Predictor over TensorFlow Serving's gRPC API, with our own trimmed messages."""

from collections.abc import Sequence

import grpc
import numpy as np
import numpy.typing as npt

from gateway.errors import InvalidModelAnswer
from gateway.model_channel import ModelChannel
from gateway.predictor import OUTPUT_SHAPES, KnownMetadata, Prediction, check_images, output_shape, read_predictions
from serving.channel import PREDICT_METHOD, metadata_request, predict_batch_request, read_metadata_response
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
        return self.predict_batch(image[np.newaxis])[0]

    def predict_batch(self, images: npt.NDArray[np.uint8]) -> list[Prediction]:
        """See `gateway.predictor.Predictor`."""
        check_images(images)
        return _read_response(self._predict(predict_batch_request(self._label, images), self._timeout_s), len(images))

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


def _read_response(response: wire.PredictResponse, count: int) -> list[Prediction]:
    outputs = {name: _floats(name, tensor, count) for name, tensor in response.outputs.items() if name in OUTPUT_SHAPES}
    return read_predictions(outputs, count, response.model_spec.version.value)


def _floats(name: str, tensor: wire.TensorProto, count: int) -> Sequence[float]:
    given, expected = tuple(dim.size for dim in tensor.tensor_shape.dim), output_shape(name, count)
    if tensor.dtype != wire.DT_FLOAT or given != expected:
        raise InvalidModelAnswer(f"{name} has dtype {tensor.dtype} and shape {given}, expected floats {expected}")
    return list(tensor.float_val) or np.frombuffer(tensor.tensor_content, np.float32).tolist()
