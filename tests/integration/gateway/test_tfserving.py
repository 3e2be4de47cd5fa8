"""The gateway's side of gRPC, against a real server whose behaviour a test sets."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
import pytest

from gateway.errors import InvalidModelAnswer, ModelServerOverloaded, ModelServerTimeout, ModelServerUnavailable
from gateway.tfserving import TFServingPredictor
from serving.channel import PREDICT_METHOD
from serving.wire import prediction_pb2 as wire
from tests.metadata import METADATA
from tests.processes import free_port

IMAGE = np.zeros((224, 224, 3), np.uint8)
QUEUE_FULL = "The batch scheduling queue to which this task was submitted is full; currently 4 batches enqueued and ..."


def floats(values, *shape):
    shape_message = wire.TensorShapeProto(dim=[wire.TensorShapeProto.Dim(size=size) for size in shape])
    return wire.TensorProto(dtype=wire.DT_FLOAT, tensor_shape=shape_message, float_val=values)


def answer(probabilities=(0.25, 0.75), none_score=1.5, version=1, **changes):
    outputs = {
        "probabilities": floats(probabilities, 1, 2),
        "none_score": floats([none_score], 1),
        "activation_map": floats(range(49), 1, 7, 7),
    } | changes
    response = wire.PredictResponse(outputs={name: value for name, value in outputs.items() if value is not None})
    response.model_spec.version.value = version
    return response


def metadata_answer(text, version=1):
    response = wire.PredictResponse(outputs={"metadata": wire.TensorProto(dtype=wire.DT_STRING, string_val=[text.encode()])})
    response.model_spec.version.value = version
    return response


class ModelServer:
    """Does what `steps` say, one a call, the last one again and again."""

    def __init__(self):
        self.steps = [answer()]
        self.requests = []
        self.release = threading.Event()

    def predict(self, request, context):
        self.requests.append(request)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if step == "hang":
            self.release.wait(10)
        if isinstance(step, tuple):
            context.abort(*step)
        return step if isinstance(step, wire.PredictResponse) else answer()


@contextmanager
def serving(behaviour, port=0):
    method = grpc.unary_unary_rpc_method_handler(
        behaviour.predict, wire.PredictRequest.FromString, wire.PredictResponse.SerializeToString
    )
    _, service, name = PREDICT_METHOD.split("/")
    running = grpc.server(ThreadPoolExecutor(4))
    running.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {name: method})])
    behaviour.port = running.add_insecure_port(f"127.0.0.1:{port}")
    running.start()
    yield behaviour
    behaviour.release.set()
    running.stop(0).wait()


@pytest.fixture
def server():
    with serving(ModelServer()) as behaviour:
        yield behaviour


@pytest.fixture
def predictor(server):
    opened = TFServingPredictor(f"127.0.0.1:{server.port}", "stable", timeout_s=2.0)
    yield opened
    opened.close()


def test_one_picture_is_sent_as_bytes_to_the_labelled_version(server, predictor):
    image = np.random.default_rng(1).integers(0, 256, (224, 224, 3), dtype=np.uint8)

    prediction = predictor.predict(image)

    request = server.requests[0]
    assert (request.model_spec.name, request.model_spec.version_label) == ("lesion", "stable")
    assert request.inputs["images"].tensor_content == image.tobytes()
    assert [dim.size for dim in request.inputs["images"].tensor_shape.dim] == [1, 224, 224, 3]
    assert (prediction.malignant, prediction.none_score, prediction.model_version) == (0.75, 1.5, 1)
    assert prediction.activation_map[6, 6] == 48


def test_unavailable_is_tried_once_more(server, predictor):
    server.steps = [(grpc.StatusCode.UNAVAILABLE, "restarting"), answer()]

    assert predictor.predict(IMAGE).model_version == 1
    assert len(server.requests) == 2


def test_unavailable_twice_is_the_end(server, predictor):
    server.steps = [(grpc.StatusCode.UNAVAILABLE, "restarting")]

    with pytest.raises(ModelServerUnavailable):
        predictor.predict(IMAGE)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("code", "text", "error"),
    [
        (grpc.StatusCode.UNAVAILABLE, QUEUE_FULL, ModelServerOverloaded),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting in batching queue", ModelServerOverloaded),
        (grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(lesion)", ModelServerUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "x", ModelServerTimeout),
        (grpc.StatusCode.INVALID_ARGUMENT, "x", InvalidModelAnswer),
        (grpc.StatusCode.FAILED_PRECONDITION, "x", InvalidModelAnswer),
        (grpc.StatusCode.INTERNAL, "x", InvalidModelAnswer),
    ],
)
def test_other_codes_are_not_tried_again(server, predictor, code, text, error):
    server.steps = [(code, text)]

    with pytest.raises(error):
        predictor.predict(IMAGE)
    assert len(server.requests) == 1


def test_a_server_that_hangs_costs_no_more_than_the_deadline(server):
    server.steps = ["hang"]
    predictor = TFServingPredictor(f"127.0.0.1:{server.port}", "stable", timeout_s=0.3)

    with pytest.raises(ModelServerTimeout):
        predictor.predict(IMAGE)
    predictor.close()


def test_no_server_at_all_is_unavailable():
    predictor = TFServingPredictor("127.0.0.1:1", "stable", timeout_s=2.0)

    with pytest.raises(ModelServerUnavailable):
        predictor.predict(IMAGE)
    predictor.close()


def test_a_server_that_comes_back_is_found_although_the_last_calls_failed():
    """In the back-off after a failed connection every call fails at once; after a restart that must not cost a request."""
    port = free_port()
    predictor = TFServingPredictor(f"127.0.0.1:{port}", "stable", timeout_s=5.0)
    for _ in range(3):
        with pytest.raises(ModelServerUnavailable):
            predictor.predict(IMAGE)

    with serving(ModelServer(), port):
        assert predictor.predict(IMAGE).model_version == 1
    predictor.close()


@pytest.mark.parametrize(
    "bad",
    [
        answer((float("nan"), 0.5)),
        answer((0.5, 0.7)),
        answer((-0.1, 1.1)),
        answer(none_score=float("inf")),
        answer(version=0),
        answer(activation_map=None),
        answer(activation_map=floats(range(48), 1, 6, 8)),
        wire.PredictResponse(),
    ],
    ids=["nan", "sum", "range", "infinite", "no version", "no map", "shape", "empty"],
)
def test_an_answer_that_breaks_the_contract_is_never_shown(server, predictor, bad):
    server.steps = [bad]

    with pytest.raises(InvalidModelAnswer):
        predictor.predict(IMAGE)


def test_metadata_are_asked_of_the_version_that_answered_and_kept(server, predictor):
    server.steps = [metadata_answer(METADATA.to_json())]

    assert predictor.metadata(1) == METADATA
    assert predictor.metadata(1) == METADATA
    assert [request.model_spec.version.value for request in server.requests] == [1]
    assert server.requests[0].model_spec.signature_name == "metadata"


@pytest.mark.parametrize(
    "bad",
    [
        metadata_answer("{"),
        metadata_answer("{}"),
        metadata_answer(METADATA.to_json().replace('"malignant"\n', '"melanoma"\n')),
        metadata_answer(METADATA.to_json(), version=2),
        wire.PredictResponse(),
    ],
    ids=["no JSON", "empty", "classes", "version", "nothing"],
)
def test_metadata_that_break_the_contract_are_not_kept(server, predictor, bad):
    server.steps = [bad]

    for _ in range(2):
        with pytest.raises(InvalidModelAnswer):
            predictor.metadata(1)
    assert len(server.requests) == 2


def test_readiness_asks_every_time(server, predictor):
    server.steps = [metadata_answer(METADATA.to_json())]

    predictor.live_metadata()
    predictor.live_metadata()

    assert [request.model_spec.version_label for request in server.requests] == ["stable", "stable"]
