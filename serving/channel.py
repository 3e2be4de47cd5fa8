"""How a model server is reached over gRPC, plain or with TLS, and what it is asked."""

from pathlib import Path
from typing import Final

import grpc
import numpy as np
import numpy.typing as npt

from serving.contract import (
    IMAGES_INPUT,
    METADATA_OUTPUT,
    METADATA_SIGNATURE,
    MODEL_NAME,
    PREDICT_SIGNATURE,
    SCHEMA_VERSION,
    SCHEMA_VERSION_INPUT,
)
from serving.metadata import MetadataError, ModelMetadata
from serving.wire import prediction_pb2 as wire

PREDICT_METHOD: Final = "/tensorflow.serving.PredictionService/Predict"

# Never through a proxy that the environment names: what is sent is for the model server alone.
NO_PROXY: Final = ("grpc.enable_http_proxy", 0)


class CredentialsError(ValueError):
    """A file of keys or certificates cannot be used."""


def read_credentials(ca: str, certificate: str, key: str) -> grpc.ChannelCredentials | None:
    """What a client shows and expects.

    Args:
        ca: PEM file of the authority that has signed the server's certificate; empty for plain text.
        certificate: PEM file of the client's own, where the server asks for one; may be empty.
        key: PEM file of the key that belongs to it.

    Returns:
        None for plain text.

    Raises:
        CredentialsError: a file cannot be read, or there is a certificate without what belongs to it.
    """
    if bool(certificate) != bool(key) or (certificate and not ca):
        raise CredentialsError("a client's certificate needs its key, and the authority of the server")
    try:
        read = [Path(name).read_bytes() if name else None for name in (ca, key, certificate)]
    except OSError as error:
        raise CredentialsError(str(error)) from error
    return grpc.ssl_channel_credentials(*read) if ca else None


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None, options: tuple[tuple[str, str | int], ...] = ()
) -> grpc.Channel:
    """A channel that uses no proxy. Nothing is sent yet."""
    options = (*options, NO_PROXY)
    if credentials is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, credentials, options=options)


def predict_request(label: str, image: npt.NDArray[np.uint8]) -> wire.PredictRequest:
    """Asks the version that answers to a label for one picture, uint8 [224, 224, 3]."""
    return predict_batch_request(label, image[np.newaxis])


def predict_batch_request(label: str, images: npt.NDArray[np.uint8]) -> wire.PredictRequest:
    """Asks the version that answers to a label for one picture or more, uint8 [N, 224, 224, 3]."""
    spec = wire.ModelSpec(name=MODEL_NAME, version_label=label, signature_name=PREDICT_SIGNATURE)
    pixels = np.ascontiguousarray(images).tobytes()
    tensor = wire.TensorProto(dtype=wire.DT_UINT8, tensor_shape=_shape(*images.shape), tensor_content=pixels)
    return wire.PredictRequest(model_spec=spec, inputs={IMAGES_INPUT: tensor})


def metadata_request(*, label: str | None = None, version: int | None = None) -> wire.PredictRequest:
    """Asks the version that answers to a label, or a version, for its metadata document."""
    spec = wire.ModelSpec(name=MODEL_NAME, signature_name=METADATA_SIGNATURE)
    if label is not None:
        spec.version_label = label
    if version is not None:
        spec.version.value = version
    tensor = wire.TensorProto(dtype=wire.DT_INT32, tensor_shape=_shape(1), int_val=[SCHEMA_VERSION])
    return wire.PredictRequest(model_spec=spec, inputs={SCHEMA_VERSION_INPUT: tensor})


def read_metadata_response(response: wire.PredictResponse) -> ModelMetadata:
    """The document of the version that gave it.

    Raises:
        MetadataError: there is none, it breaks its rules, or it is another version's.
    """
    answered = response.model_spec.version.value
    values = response.outputs[METADATA_OUTPUT].string_val if METADATA_OUTPUT in response.outputs else []
    if len(values) != 1:
        raise MetadataError(f"version {answered} gave no metadata document")
    metadata = ModelMetadata.from_json(values[0])
    if metadata.version != answered:
        raise MetadataError(f"version {answered} carries the metadata of version {metadata.version}")
    return metadata


def _shape(*sizes: int) -> wire.TensorShapeProto:
    return wire.TensorShapeProto(dim=[wire.TensorShapeProto.Dim(size=size) for size in sizes])
