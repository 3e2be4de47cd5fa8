"""What our stack relies on in a model server, as a table; run against the embedded one and, where there is one, the real one.

TFS_ADDRESS=host:port names a running tensorflow_model_server that serves version 1 of the tiny model as `lesion` with the label
`stable`; with tensorflow_model_server on the PATH one is started. Cases that take a server of their own have their own files.
"""

import os

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests import processes

SERVERS = [*processes.MODEL_SERVERS]
if "TFS_ADDRESS" in os.environ and "real" not in SERVERS:
    SERVERS.append("real")


@pytest.fixture(scope="module", params=SERVERS)
def channel(request, tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("contract")
    if request.param == "real" and "TFS_ADDRESS" in os.environ:
        with grpc.insecure_channel(os.environ["TFS_ADDRESS"]) as opened:
            yield opened
        return
    with (
        processes.model_server(tiny_base, folder, program=processes.MODEL_SERVERS[request.param]) as (_, port, _rest),
        grpc.insecure_channel(f"127.0.0.1:{port}") as opened,
    ):
        yield opened


def predict(channel, request):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=30)


def predict_request(name="lesion", signature="", version=None, label=None, output_filter=(), **inputs):
    request = predict_pb2.PredictRequest(output_filter=output_filter)
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    for alias, value in inputs.items():
        request.inputs[alias].CopyFrom(value if isinstance(value, tensor_pb2.TensorProto) else tf.make_tensor_proto(value))
    return request


IMAGE = np.full((1, 224, 224, 3), 51, np.uint8)
SHORT = tensor_pb2.TensorProto(dtype=4, tensor_content=b"123")
SHORT.tensor_shape.dim.add(size=9)

CASES = {
    "no model spec": (predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
    "no name": (predict_request(name="", label="x"), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    "unknown model": (predict_request(name="other"), "NOT_FOUND", "Servable not found for request: Latest(other)"),
    "unknown version": (predict_request(version=9), "NOT_FOUND", "Servable not found for request: Specific(lesion, 9)"),
    "unknown label": (predict_request(label="beta"), "INVALID_ARGUMENT", "Unrecognized servable version label: beta"),
    "label of an unknown model": (
        predict_request(name="other", label="stable"),
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: stable",
    ),
    "unknown signature": (predict_request(signature="x"), "FAILED_PRECONDITION", 'Serving signature key "x" not found.'),
    "no input": (
        predict_request(),
        "INVALID_ARGUMENT",
        "input size does not match signature: 0!=1 len({}) != len({images}). Sent extra: {}. Missing but required: {images}.",
    ),
    "another alias": (
        predict_request(pictures=IMAGE),
        "INVALID_ARGUMENT",
        "Signature input alias: images(feed name: serving_default_images:0) not found in request and no default value "
        "provided. Inputs expected to be in the request {pictures}, or default input alias set: ",
    ),
    "an input too many": (
        predict_request(images=IMAGE, extra=IMAGE),
        "INVALID_ARGUMENT",
        "input size does not match signature: 2!=1 len({extra,images}) != len({images}). Sent extra: {extra}. "
        "Missing but required: {}.",
    ),
    "a long name": (
        predict_request(signature="x" * 3000),
        "FAILED_PRECONDITION",
        ('Serving signature key "' + "x" * 3000)[:1024] + "...TRUNCATED",
    ),
    "another dtype": (
        predict_request(images=IMAGE.astype(np.float32)),
        "INVALID_ARGUMENT",
        "Expects arg[0] to be uint8 but float is provided",
    ),
    "short tensor": (predict_request(images=SHORT), "INVALID_ARGUMENT", "tensor parsing error: images"),
    "more rows than a batch": (
        predict_request(images=np.zeros((33, 224, 224, 3), np.uint8)),
        "INVALID_ARGUMENT",
        "Task size 33 is larger than maximum input batch size 32",
    ),
    "unknown output": (
        predict_request(images=IMAGE, output_filter=["x"]),
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: x Outputs expected to be in the set "
        "{activation_map,none_score,probabilities}.",
    ),
    "the same output twice": (
        predict_request(images=IMAGE, output_filter=["none_score", "none_score"]),
        "INVALID_ARGUMENT",
        "duplicate output tensor alias: none_score",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_predict_refuses(channel, case):
    request, code, text = CASES[case]

    with pytest.raises(grpc.RpcError) as caught:
        predict(channel, request)

    assert (caught.value.code().name, caught.value.details()) == (code, text)


@pytest.mark.parametrize("shape", [(1, 128, 128, 3), (1, 224, 224, 1), (1, 224, 3)])
def test_the_graph_refuses_another_shape(channel, shape):
    with pytest.raises(grpc.RpcError) as caught:
        predict(channel, predict_request(images=np.zeros(shape, np.uint8)))

    assert caught.value.code().name == "INVALID_ARGUMENT"
    # Around it stand names of nodes, which depend on how the graph was rewritten.
    given = ",".join(str(size) for size in shape)
    assert caught.value.details().startswith("Shape of tensor ")
    assert f" [{given}] is not compatible with expected shape [?,224,224,3].\n\t [[" in caught.value.details()


def test_a_call_without_a_deadline_is_answered(channel):
    response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(predict_request(images=IMAGE))

    assert response.model_spec.version.value == 1


@pytest.mark.parametrize("choice", [{}, {"version": 1}, {"label": "stable"}])
def test_predict_answers_with_the_version_and_never_the_label(channel, choice):
    response = predict(channel, predict_request(images=IMAGE, **choice))

    assert response.model_spec.version.value == 1
    assert response.model_spec.WhichOneof("version_choice") == "version"
    assert response.model_spec.signature_name == "serving_default"
    assert set(response.outputs) == {"probabilities", "none_score", "activation_map"}
    assert tf.make_ndarray(response.outputs["probabilities"])[0, 1] == pytest.approx(0.2)
    assert response.outputs["probabilities"].float_val
    assert not response.outputs["probabilities"].tensor_content


@pytest.mark.parametrize("count", [1, IMAGE.size + 1])
def test_one_value_stands_for_all_elements_and_one_too_many_for_none(channel, count):
    tensor = tensor_pb2.TensorProto(dtype=4, int_val=[51] * count)
    for size in IMAGE.shape:
        tensor.tensor_shape.dim.add(size=size)

    response = predict(channel, predict_request(images=tensor))

    assert tf.make_ndarray(response.outputs["probabilities"])[0, 1] == pytest.approx(0.2)


def test_an_output_filter_leaves_the_others_out(channel):
    request = predict_request(images=IMAGE, output_filter=["none_score"])

    assert set(predict(channel, request).outputs) == {"none_score"}


def test_the_metadata_signature_answers_under_batching(channel):
    request = predict_request(signature="metadata", schema_version=np.array([1], np.int32))

    response = predict(channel, request)

    assert b'"schema_version": 1' in response.outputs["metadata"].string_val[0]


@pytest.mark.parametrize("choice", [{}, {"version": {"value": 1}}, {"version_label": "anything"}])
def test_status_says_what_became_of_a_version_and_passes_over_labels(channel, choice):
    request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "lesion", **choice})

    (status,) = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=30).model_version_status

    assert (status.version, status.state, status.status.error_code) == (1, status.AVAILABLE, 0)


@pytest.mark.parametrize(
    ("spec", "code", "text"),
    [
        (None, "INVALID_ARGUMENT", "Missing ModelSpec"),
        ({"name": "other"}, "NOT_FOUND", "Could not find any versions of model other"),
        ({"name": "lesion", "version": {"value": 5}}, "NOT_FOUND", "Could not find version 5 of model lesion"),
    ],
)
def test_status_refuses(channel, spec, code, text):
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)

    with pytest.raises(grpc.RpcError) as caught:
        model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=30)

    assert (caught.value.code().name, caught.value.details()) == (code, text)


@pytest.mark.parametrize(
    ("spec", "fields", "code", "text"),
    [
        (None, ["signature_def"], "INVALID_ARGUMENT", "Missing ModelSpec"),
        ({"name": "other"}, ["signature_def"], "NOT_FOUND", "Servable not found for request: Latest(other)"),
        ({"name": "lesion"}, [], "INVALID_ARGUMENT", "GetModelMetadataRequest must specify at least one metadata_field"),
        ({"name": "lesion"}, ["other"], "INVALID_ARGUMENT", "Metadata field other is not supported"),
    ],
)
def test_model_metadata_refuses(channel, spec, fields, code, text):
    request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=fields)

    with pytest.raises(grpc.RpcError) as caught:
        prediction_service_pb2_grpc.PredictionServiceStub(channel).GetModelMetadata(request, timeout=30)

    assert (caught.value.code().name, caught.value.details()) == (code, text)


def test_model_metadata_names_the_contracts_signatures(channel):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "lesion"

    response = prediction_service_pb2_grpc.PredictionServiceStub(channel).GetModelMetadata(request, timeout=30)

    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "embed", "metadata"} <= set(signatures.signature_def)


def reload_request(tiny_base, *, names=("lesion",), base=None, platform="tensorflow", labels=None):
    """For these models; the platform is that of the last, the labels those of the first."""
    request = model_management_pb2.ReloadConfigRequest()
    configs = request.config.model_config_list.config
    for name in names:
        configs.add(name=name, base_path=base or str(tiny_base), model_platform="tensorflow")
    configs[-1].model_platform = platform
    for label, version in (labels or {"stable": 1}).items():
        configs[0].version_labels[label] = version
    return request


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"names": ("lesion", "lesion")}, "INVALID_ARGUMENT", "Illegal to list model lesion multiple times in config list"),
        (
            {"base": "relative"},
            "INVALID_ARGUMENT",
            "Expected model lesion to have an absolute path or URI; got base_path()=relative",
        ),
        (
            {"platform": ""},
            "INVALID_ARGUMENT",
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform, "
            "model name is lesion",
        ),
        (
            {"platform": "other"},
            "INVALID_ARGUMENT",
            "Illegal to change a model's platform. For model lesion platform was tensorflow and new platform requested is "
            "other",
        ),
        (
            {"names": ("lesion", "new"), "platform": "other"},
            "INVALID_ARGUMENT",
            "Model new requests unsupported platform other",
        ),
        (
            {"labels": {"stable": 8}},
            "FAILED_PRECONDITION",
            "Request to assign label to version 8 of model lesion, which is not currently available for inference",
        ),
    ],
)
def test_reload_refuses_and_goes_on_serving(channel, tiny_base, changes, code, text):
    with pytest.raises(grpc.RpcError) as caught:
        model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(
            reload_request(tiny_base, **changes), timeout=30
        )

    assert (caught.value.code().name, caught.value.details()) == (code, text)
    assert predict(channel, predict_request(images=IMAGE, label="stable"))


def test_reload_takes_a_list_of_models_only(channel):
    request = model_management_pb2.ReloadConfigRequest(config={"custom_model_config": {}})

    with pytest.raises(grpc.RpcError) as caught:
        model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=30)

    text = "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
    assert (caught.value.code().name, caught.value.details()) == ("INVALID_ARGUMENT", text)


def test_reload_gives_a_version_another_label(channel, tiny_base):
    stub = model_service_pb2_grpc.ModelServiceStub(channel)

    response = stub.HandleReloadConfigRequest(reload_request(tiny_base, labels={"stable": 1, "canary": 1}), timeout=30)

    assert response.status.error_code == 0
    request = predict_request(images=IMAGE, label="canary")
    assert predict(channel, request).model_spec.version.value == 1
