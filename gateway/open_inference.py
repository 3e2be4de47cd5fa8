"""Predictor over the Open Inference Protocol, version 2: Triton, KServe, OpenVINO Model Server.

The protocol has no signatures and no labels. What is the signature `metadata` there is a second model here, `lesion_metadata`,
with the same version numbers; which version answers is the server's choice (docs/open-inference.md).
"""

import math
from collections.abc import Sequence
from typing import Final

import grpc
import numpy as np
import numpy.typing as npt

from gateway.errors import InvalidModelAnswer, ModelServerUnavailable
from gateway.model_channel import ModelChannel
from gateway.predictor import OUTPUT_SHAPES, KnownMetadata, Prediction, check_images, output_shape, read_predictions
from serving.contract import (
    IMAGES_INPUT,
    METADATA_OUTPUT,
    METADATA_SIGNATURE,
    MODEL_NAME,
    SCHEMA_VERSION,
    SCHEMA_VERSION_INPUT,
)
from serving.metadata import MetadataError, ModelMetadata
from serving.wire import open_inference_pb2 as wire

INFER_METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
READY_METHOD: Final = "/inference.GRPCInferenceService/ModelReady"
METADATA_MODEL: Final = f"{MODEL_NAME}_{METADATA_SIGNATURE}"


class OpenInferencePredictor:
    """Asks for whichever version the server serves; reads answers with the metadata of the version that gave them."""

    def __init__(self, target: str, timeout_s: float, credentials: grpc.ChannelCredentials | None = None) -> None:
        """Open the channel. Make one in each process, after it was forked.

        Args:
            target: host:port or dns:///name:port.
            timeout_s: of one call, its retry included.
            credentials: of TLS; None for plain text.
        """
        self._timeout_s = timeout_s
        self._channel = ModelChannel(target, credentials, MODEL_NAME)
        self._infer = self._channel.method(INFER_METHOD, wire.ModelInferResponse)
        self._probe = self._channel.method(INFER_METHOD, wire.ModelInferResponse, is_probe=True)
        self._ready = self._channel.method(READY_METHOD, wire.ModelReadyResponse, is_probe=True)
        self._known = KnownMetadata(lambda version: _read_metadata(self._infer(_metadata_request(str(version)), timeout_s)))

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def predict(self, image: npt.NDArray[np.uint8]) -> Prediction:
        """See `gateway.predictor.Predictor`."""
        return self.predict_batch(image[np.newaxis])[0]

    def predict_batch(self, images: npt.NDArray[np.uint8]) -> list[Prediction]:
        """See `gateway.predictor.Predictor`."""
        check_images(images)
        request = wire.ModelInferRequest(
            model_name=MODEL_NAME,
            inputs=[wire.InferTensor(name=IMAGES_INPUT, datatype="UINT8", shape=images.shape)],
            raw_input_contents=[np.ascontiguousarray(images).tobytes()],
            outputs=[wire.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in OUTPUT_SHAPES],
        )
        response = self._infer(request, self._timeout_s)
        outputs = {
            tensor.name: _floats(tensor, _raw(response, place), len(images))
            for place, tensor in enumerate(response.outputs)
            if tensor.name in OUTPUT_SHAPES
        }
        return read_predictions(outputs, len(images), _version(response))

    def metadata(self, version: int) -> ModelMetadata:
        """See `gateway.predictor.Predictor`."""
        return self._known.of(version)

    def live_metadata(self, timeout_s: float | None = None) -> ModelMetadata:
        """See `gateway.predictor.Predictor`."""
        timeout_s = timeout_s or self._timeout_s
        metadata = _read_metadata(self._probe(_metadata_request(""), timeout_s))
        # The two models of a version load one after the other.
        version = str(metadata.version)
        if not self._ready(wire.ModelReadyRequest(name=MODEL_NAME, version=version), timeout_s).ready:
            raise ModelServerUnavailable(f"version {version} has its metadata loaded, but not its model")
        return metadata


def _metadata_request(version: str) -> wire.ModelInferRequest:
    return wire.ModelInferRequest(
        model_name=METADATA_MODEL,
        model_version=version,
        inputs=[wire.InferTensor(name=SCHEMA_VERSION_INPUT, datatype="INT32", shape=[1])],
        raw_input_contents=[np.array([SCHEMA_VERSION], "<i4").tobytes()],
    )


def _read_metadata(response: wire.ModelInferResponse) -> ModelMetadata:
    try:
        metadata = ModelMetadata.from_json(_document(response))
    except MetadataError as error:
        raise InvalidModelAnswer(str(error)) from error
    if metadata.version != _version(response):
        raise InvalidModelAnswer(f"version {response.model_version} carries the metadata of version {metadata.version}")
    return metadata


def _version(response: wire.ModelInferResponse) -> int:
    """0 if the server does not say: the protocol lets it."""
    return int(response.model_version) if response.model_version.isdecimal() else 0


def _raw(response: wire.ModelInferResponse, place: int) -> bytes:
    return response.raw_output_contents[place] if place < len(response.raw_output_contents) else b""


def _floats(tensor: wire.InferTensor, raw: bytes, count: int) -> Sequence[float]:
    expected = output_shape(tensor.name, count)
    # Triton has no output of one number a picture: it says [1, 1] where TensorFlow Serving says [1].
    if tensor.datatype != "FP32" or [size for size in tensor.shape if size != 1] != [size for size in expected if size != 1]:
        raise InvalidModelAnswer(f"{tensor.name} is {tensor.datatype} {list(tensor.shape)}, expected FP32 {list(expected)}")
    if raw and len(raw) != 4 * math.prod(expected):
        raise InvalidModelAnswer(f"{tensor.name} has {len(raw)} bytes, expected {4 * math.prod(expected)}")
    return np.frombuffer(raw, "<f4").tolist() if raw else list(tensor.contents.fp32_contents)


def _document(response: wire.ModelInferResponse) -> bytes:
    for place, tensor in enumerate(response.outputs):
        if tensor.name == METADATA_OUTPUT and tensor.datatype == "BYTES":
            # One element, after its length in four bytes.
            return _raw(response, place)[4:] or b"".join(tensor.contents.bytes_contents[:1])
    raise InvalidModelAnswer(f"version {response.model_version} gave no metadata document")
