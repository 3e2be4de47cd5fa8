"""Our trimmed messages and the official ones are the same bytes."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import wrappers_pb2
from google.protobuf.descriptor import FieldDescriptor
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, model_pb2, predict_pb2, status_pb2
from tensorflow_serving.config import model_server_config_pb2
from tensorflow_serving.config.file_system_storage_path_source_pb2 import FileSystemStoragePathSourceConfig

from gateway import tfserving
from serving import channel, model_server
from serving.wire import management_pb2 as management
from serving.wire import prediction_pb2 as wire

POLICY = FileSystemStoragePathSourceConfig.ServableVersionPolicy
PAIRS = [
    (wire.PredictRequest, predict_pb2.PredictRequest),
    (wire.PredictResponse, predict_pb2.PredictResponse),
    (wire.ModelSpec, model_pb2.ModelSpec),
    (wire.TensorProto, tensor_pb2.TensorProto),
    (wire.TensorShapeProto, tensor_shape_pb2.TensorShapeProto),
    (wire.TensorShapeProto.Dim, tensor_shape_pb2.TensorShapeProto.Dim),
    (wire.PredictRequest.InputsEntry, predict_pb2.PredictRequest.InputsEntry),
    (wire.PredictResponse.OutputsEntry, predict_pb2.PredictResponse.OutputsEntry),
    (wire.Int64Value, wrappers_pb2.Int64Value),
    (management.GetModelStatusRequest, get_model_status_pb2.GetModelStatusRequest),
    (management.GetModelStatusResponse, get_model_status_pb2.GetModelStatusResponse),
    (management.ModelVersionStatus, get_model_status_pb2.ModelVersionStatus),
    (management.StatusProto, status_pb2.StatusProto),
    (management.ReloadConfigRequest, model_management_pb2.ReloadConfigRequest),
    (management.ReloadConfigResponse, model_management_pb2.ReloadConfigResponse),
    (management.ModelServerConfig, model_server_config_pb2.ModelServerConfig),
    (management.ModelConfigList, model_server_config_pb2.ModelConfigList),
    (management.ModelConfig, model_server_config_pb2.ModelConfig),
    (management.ModelConfig.VersionLabelsEntry, model_server_config_pb2.ModelConfig.VersionLabelsEntry),
    (management.ServableVersionPolicy, POLICY),
    (management.ServableVersionPolicy.Latest, POLICY.Latest),
    (management.ServableVersionPolicy.All, POLICY.All),
    (management.ServableVersionPolicy.Specific, POLICY.Specific),
]


def kind_on_the_wire(field):
    """Enumerations and int32 are the same bytes; a message is what its name says."""
    kind = FieldDescriptor.TYPE_INT32 if field.type == FieldDescriptor.TYPE_ENUM else field.type
    return kind, field.is_repeated, field.message_type.name if field.message_type else None


def test_every_message_of_ours_is_compared():
    compared = {ours.DESCRIPTOR.name for ours, _ in PAIRS}

    assert compared >= {*wire.DESCRIPTOR.message_types_by_name, *management.DESCRIPTOR.message_types_by_name}


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda message: message.DESCRIPTOR.full_name)
def test_every_field_has_upstreams_number_and_kind(ours, theirs):
    for field in ours.DESCRIPTOR.fields:
        other = theirs.DESCRIPTOR.fields_by_name[field.name]
        assert (field.number, kind_on_the_wire(field)) == (other.number, kind_on_the_wire(other))
        assert (field.containing_oneof is None) == (other.containing_oneof is None)


def test_data_types_have_upstreams_numbers():
    for name, number in wire.DataType.items():
        assert types_pb2.DataType.Value(name) == number


def test_the_methods_are_upstreams():
    package = predict_pb2.DESCRIPTOR.package

    assert f"/{package}.PredictionService/Predict" == channel.PREDICT_METHOD
    assert f"/{package}.ModelService/GetModelStatus" == model_server.STATUS_METHOD
    assert f"/{package}.ModelService/HandleReloadConfigRequest" == model_server.RELOAD_METHOD


def test_official_code_reads_our_request():
    pixels = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    ours = wire.PredictRequest(
        model_spec=wire.ModelSpec(name="lesion", version_label="stable", signature_name="serving_default"),
        inputs={
            "images": wire.TensorProto(
                dtype=wire.DT_UINT8,
                tensor_shape=wire.TensorShapeProto(dim=[wire.TensorShapeProto.Dim(size=size) for size in pixels.shape]),
                tensor_content=pixels.tobytes(),
            )
        },
    )

    theirs = predict_pb2.PredictRequest.FromString(ours.SerializeToString())

    assert theirs.model_spec.version_label == "stable"
    np.testing.assert_array_equal(tf.make_ndarray(theirs.inputs["images"]), pixels)


@pytest.mark.parametrize("as_content", [True, False])
def test_we_read_official_answers_with_typed_fields_and_with_content(as_content):
    values = {"probabilities": [[0.25, 0.75]], "none_score": [1.5], "activation_map": np.arange(49).reshape(1, 7, 7)}
    theirs = predict_pb2.PredictResponse()
    theirs.model_spec.version.value = 7
    for name, value in values.items():
        tensor = tf.make_tensor_proto(np.asarray(value, np.float32))
        if not as_content and tensor.tensor_content:
            floats = np.frombuffer(tensor.tensor_content, np.float32)
            tensor = tensor_pb2.TensorProto(dtype=tensor.dtype, tensor_shape=tensor.tensor_shape, float_val=floats)
        theirs.outputs[name].CopyFrom(tensor)

    (prediction,) = tfserving._read_response(wire.PredictResponse.FromString(theirs.SerializeToString()), 1)

    assert (prediction.malignant, prediction.none_score, prediction.model_version) == (0.75, 1.5, 7)
    np.testing.assert_array_equal(prediction.activation_map, np.arange(49).reshape(7, 7))


def test_states_have_upstreams_numbers():
    for name, number in management.ModelVersionStatus.State.items():
        assert get_model_status_pb2.ModelVersionStatus.State.Value(name) == number
