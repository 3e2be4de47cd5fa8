"""What the Open Inference Protocol allows and Triton does not do, from a server whose answers a test sets."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from gateway.errors import InvalidModelAnswer, ModelServerUnavailable
from gateway.open_inference import INFER_METHOD, READY_METHOD, OpenInferencePredictor
from serving.wire import open_inference_pb2 as wire
from tests.metadata import METADATA

IMAGE = np.zeros((224, 224, 3), np.uint8)
VALUES = {"probabilities": ([1, 2], [0.25, 0.75]), "none_score": ([1], [1.5]), "activation_map": ([1, 7, 7], range(49))}


def answer(version="1", is_raw=True, datatype="FP32", **changes):
    response = wire.ModelInferResponse(model_name="lesion", model_version=version)
    for name, value in (VALUES | changes).items():
        if value is None:
            continue
        shape, numbers = value
        tensor = response.outputs.add(name=name, datatype=datatype, shape=shape)
        if is_raw:
            response.raw_output_contents.append(np.array(numbers, "<f4").tobytes())
        else:
            tensor.contents.fp32_contents.extend(numbers)
    return response


def document(text, version="1", is_raw=True):
    response = wire.ModelInferResponse(model_name="lesion_metadata", model_version=version)
    tensor = response.outputs.add(name="metadata", datatype="BYTES", shape=[1])
    if is_raw:
        response.raw_output_contents.append(len(text).to_bytes(4, "little") + text.encode())
    else:
        tensor.contents.bytes_contents.append(text.encode())
    return response


class Server:
    """Gives the answers that are set; keeps what it was asked."""

    def __init__(self):
        self.answers = {"lesion": answer(), "lesion_metadata": document(METADATA.to_json())}
        self.is_ready = True
        self.asked = []
        self.shapes = []

    def infer(self, request, context):
        self.asked.append((request.model_name, request.model_version))
        self.shapes.append(list(request.inputs[0].shape))
        return self.answers[request.model_name]

    def ready(self, request, context):
        self.asked.append((request.name, request.version))
        return wire.ModelReadyResponse(ready=self.is_ready)


@pytest.fixture
def server():
    behaviour = Server()
    running = grpc.server(ThreadPoolExecutor(2))
    service = INFER_METHOD.split("/")[1]
    methods = {
        INFER_METHOD.split("/")[2]: grpc.unary_unary_rpc_method_handler(
            behaviour.infer, wire.ModelInferRequest.FromString, wire.ModelInferResponse.SerializeToString
        ),
        READY_METHOD.split("/")[2]: grpc.unary_unary_rpc_method_handler(
            behaviour.ready, wire.ModelReadyRequest.FromString, wire.ModelReadyResponse.SerializeToString
        ),
    }
    running.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, methods)])
    behaviour.port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield behaviour
    running.stop(0).wait()


@pytest.fixture
def predictor(server):
    opened = OpenInferencePredictor(f"127.0.0.1:{server.port}", timeout_s=5.0)
    yield opened
    opened.close()


@pytest.mark.parametrize("is_raw", [True, False])
def test_numbers_are_read_from_bytes_and_from_typed_fields(server, predictor, is_raw):
    server.answers["lesion"] = answer(is_raw=is_raw)

    prediction = predictor.predict(IMAGE)

    assert (prediction.malignant, prediction.none_score, prediction.model_version) == (0.75, 1.5, 1)
    np.testing.assert_array_equal(prediction.activation_map, np.arange(49).reshape(7, 7))


@pytest.mark.parametrize("is_raw", [True, False])
@pytest.mark.parametrize("score_shape", [[2], [2, 1]])
def test_several_pictures_are_one_call_and_answered_in_their_order(server, predictor, is_raw, score_shape):
    server.answers["lesion"] = answer(
        is_raw=is_raw,
        probabilities=([2, 2], [0.75, 0.25, 0.5, 0.5]),
        none_score=(score_shape, [1.0, 2.0]),
        activation_map=([2, 7, 7], [0.0] * 49 + [1.0] * 49),
    )

    first, second = predictor.predict_batch(np.stack([IMAGE, IMAGE]))

    assert (first.malignant, first.none_score, first.activation_map.max()) == (0.25, 1.0, 0.0)
    assert (second.malignant, second.none_score, second.activation_map.min()) == (0.5, 2.0, 1.0)
    assert server.asked == [("lesion", "")]
    assert server.shapes == [[2, 224, 224, 3]]


def test_an_answer_for_fewer_pictures_than_were_asked_about_is_never_shown(predictor):
    with pytest.raises(InvalidModelAnswer):
        predictor.predict_batch(np.stack([IMAGE, IMAGE]))


@pytest.mark.parametrize(
    "bad",
    [
        answer(version=""),
        answer(version="v1"),
        answer(version="0"),
        answer(datatype="FP16"),
        answer(activation_map=None),
        answer(activation_map=([1, 6, 8], range(48))),
        answer(none_score=([1], [1.0, 2.0])),
        answer(none_score=([1], [1.0, 2.0]), is_raw=False),
        answer(probabilities=([1, 2], [float("nan"), 0.5])),
        answer(probabilities=([1, 2], [0.5, 0.7])),
        wire.ModelInferResponse(),
    ],
    ids=["no version", "name", "zero", "type", "no map", "shape", "bytes", "values", "nan", "sum", "empty"],
)
def test_an_answer_that_breaks_the_contract_is_never_shown(server, predictor, bad):
    server.answers["lesion"] = bad

    with pytest.raises(InvalidModelAnswer):
        predictor.predict(IMAGE)


@pytest.mark.parametrize("is_raw", [True, False])
def test_metadata_are_asked_once_of_the_version_that_answered(server, predictor, is_raw):
    server.answers["lesion_metadata"] = document(METADATA.to_json(), is_raw=is_raw)

    assert predictor.metadata(1) == METADATA
    assert predictor.metadata(1) == METADATA
    assert server.asked == [("lesion_metadata", "1")]


@pytest.mark.parametrize(
    "bad",
    [
        document("{"),
        document(METADATA.to_json(), version="2"),
        document(METADATA.to_json(), version=""),
        document(METADATA.to_json(), is_raw=False, version="3"),
        wire.ModelInferResponse(model_version="1"),
    ],
    ids=["no JSON", "version", "no version", "typed", "nothing"],
)
def test_metadata_that_break_the_contract_are_not_kept(server, predictor, bad):
    server.answers["lesion_metadata"] = bad

    for _ in range(2):
        with pytest.raises(InvalidModelAnswer):
            predictor.metadata(1)
    assert len(server.asked) == 2


def test_readiness_asks_both_models_every_time(server, predictor):
    for _ in range(2):
        assert predictor.live_metadata() == METADATA

    assert server.asked == [("lesion_metadata", ""), ("lesion", "1")] * 2


def test_metadata_without_their_model_are_not_ready(server, predictor):
    server.is_ready = False

    with pytest.raises(ModelServerUnavailable, match="version 1"):
        predictor.live_metadata()
