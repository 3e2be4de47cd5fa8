"""The gateway's side of gRPC, against a real server whose behaviour a test sets."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from prometheus_client import REGISTRY

from gateway import deadline
from gateway.breaker import FAILURES
from gateway.errors import (
    InvalidModelAnswer,
    ModelServerOverloaded,
    ModelServerTimeout,
    ModelServerUnavailable,
    PredictionError,
)
from gateway.model_channel import RETRY_BURST, RETRY_SHARE
from gateway.tfserving import TFServingPredictor
from serving.channel import PREDICT_METHOD
from serving.wire import prediction_pb2 as wire
from tests.metadata import METADATA
from tests.processes import free_port, wait_until

IMAGE = np.zeros((224, 224, 3), np.uint8)
QUEUE_FULL = "The batch scheduling queue to which this task was submitted is full; currently 4 batches enqueued and ..."


def floats(values, *shape):
    shape_message = wire.TensorShapeProto(dim=[wire.TensorShapeProto.Dim(size=size) for size in shape])
    return wire.TensorProto(dtype=wire.DT_FLOAT, tensor_shape=shape_message, float_val=values)


def answer(probabilities=(0.25, 0.75), none_score=1.5, version=1, **changes):
    outputs = {
        "probabilities": probabilities if isinstance(probabilities, wire.TensorProto) else floats(probabilities, 1, 2),
        "none_score": none_score if isinstance(none_score, wire.TensorProto) else floats([none_score], 1),
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
        self.left_s = []
        self.release = threading.Event()

    def predict(self, request, context):
        self.requests.append(request)
        self.left_s.append(context.time_remaining())
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
    behaviour.stop = lambda: running.stop(0).wait()
    yield behaviour
    behaviour.release.set()
    running.stop(0).wait()


@pytest.fixture
def server():
    with serving(ModelServer()) as behaviour:
        yield behaviour


@pytest.fixture
def predictor(server):
    """Not closed: the thread with which gRPC watches a channel complains about that right after retries. It ends by itself."""
    return TFServingPredictor(f"127.0.0.1:{server.port}", "stable", timeout_s=2.0)


def test_one_picture_is_sent_as_bytes_to_the_labelled_version(server, predictor):
    image = np.random.default_rng(1).integers(0, 256, (224, 224, 3), dtype=np.uint8)

    prediction = predictor.predict(image)

    request = server.requests[0]
    assert (request.model_spec.name, request.model_spec.version_label) == ("lesion", "stable")
    assert request.inputs["images"].tensor_content == image.tobytes()
    assert [dim.size for dim in request.inputs["images"].tensor_shape.dim] == [1, 224, 224, 3]
    assert (prediction.malignant, prediction.none_score, prediction.model_version) == (0.75, 1.5, 1)
    assert prediction.activation_map[6, 6] == 48


def test_several_pictures_are_one_call_and_answered_in_their_order(server, predictor):
    images = np.random.default_rng(1).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    maps = [number for place in range(3) for number in [place] * 49]
    server.steps = [
        answer(
            probabilities=floats([0.9, 0.1, 0.5, 0.5, 0.2, 0.8], 3, 2),
            none_score=floats([1.0, 2.0, 3.0], 3),
            activation_map=floats(maps, 3, 7, 7),
        )
    ]

    predictions = predictor.predict_batch(images)

    (request,) = server.requests
    assert request.inputs["images"].tensor_content == images.tobytes()
    assert [dim.size for dim in request.inputs["images"].tensor_shape.dim] == [3, 224, 224, 3]
    assert [prediction.malignant for prediction in predictions] == pytest.approx([0.1, 0.5, 0.8])
    assert [prediction.none_score for prediction in predictions] == [1.0, 2.0, 3.0]
    assert [prediction.activation_map.max() for prediction in predictions] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"none_score": floats([1.0, 2.0, 3.0], 3)},
        {"probabilities": floats([0.9, 0.1, 0.5, 0.6], 2, 2)},
        {"none_score": floats([1.0, float("nan")], 2)},
        {"probabilities": floats([0.9, 0.1] * 2, 1, 4)},
    ],
    ids=["of one", "of three", "sum of the second", "nan of the second", "shape"],
)
def test_an_answer_for_other_pictures_than_were_asked_about_is_never_shown(server, predictor, bad):
    good = {"probabilities": floats([0.9, 0.1] * 2, 2, 2), "none_score": floats([1.0] * 2, 2)}
    good["activation_map"] = floats([0.0] * 98, 2, 7, 7)
    server.steps = [answer(**good | bad) if bad else answer()]

    with pytest.raises(InvalidModelAnswer):
        predictor.predict_batch(np.stack([IMAGE, IMAGE]))


def test_no_picture_is_no_call(server, predictor):
    with pytest.raises(ValueError, match="expected uint8"):
        predictor.predict_batch(np.zeros((0, 224, 224, 3), np.uint8))
    assert not server.requests


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


def test_a_call_gets_no_more_than_what_is_left_of_the_request(server, predictor):
    """Its retry included, and the call for metadata."""
    server.steps = [(grpc.StatusCode.UNAVAILABLE, "restarting"), answer(), metadata_answer(METADATA.to_json())]

    with deadline.within(0.9):
        predictor.predict(IMAGE)
        predictor.metadata(1)

    assert len(server.left_s) == 3
    assert all(0 < left_s < 1 for left_s in server.left_s)


def test_a_request_whose_time_is_over_asks_nothing(server, predictor):
    with deadline.within(0.0), pytest.raises(ModelServerTimeout):
        predictor.predict(IMAGE)

    assert not server.requests


def attempt(predictor):
    """The kind of failure, or None."""
    try:
        predictor.predict(IMAGE)
    except PredictionError as error:
        return type(error)
    return None


def retried(result):
    labels = {"channel": "stable", "result": result}
    return REGISTRY.get_sample_value("dermserve_gateway_retries_total", labels) or 0.0


def state_of(label):
    """Of the circuit breaker of the channel that asks for a label. The newest one counts."""
    names = ("closed", "half_open", "open")
    values = [REGISTRY.get_sample_value("dermserve_gateway_breakers", {"channel": label, "state": name}) for name in names]
    return names[values.index(1.0)]


@pytest.mark.parametrize("step", [(grpc.StatusCode.UNAVAILABLE, "away"), "hang"])
def test_a_server_that_does_not_answer_is_asked_no_more_until_one_picture_finds_it_again(server, step):
    server.steps = [step]
    predictor = TFServingPredictor(f"127.0.0.1:{server.port}", "stable", timeout_s=0.2)
    for _ in range(FAILURES):
        assert attempt(predictor) in (ModelServerUnavailable, ModelServerTimeout)
    asked = len(server.requests)

    assert [attempt(predictor) for _ in range(20)] == [ModelServerUnavailable] * 20
    assert len(server.requests) == asked
    assert state_of("stable") == "open"

    server.release.set()
    server.steps = [metadata_answer(METADATA.to_json())]
    # Readiness says what is so now, and that is not a picture's answer.
    assert predictor.live_metadata() == METADATA
    assert state_of("stable") == "open"
    server.steps = [answer()]
    wait_until(lambda: attempt(predictor) is None)
    assert state_of("stable") == "closed"


def test_probes_of_a_server_that_is_away_open_nothing(server, predictor):
    server.steps = [(grpc.StatusCode.UNAVAILABLE, "away")]
    for _ in range(2 * FAILURES):
        with pytest.raises(ModelServerUnavailable):
            predictor.live_metadata()
    server.steps = [(grpc.StatusCode.UNAVAILABLE, "away"), answer()]

    # Nor do they use up what pictures may repeat.
    assert attempt(predictor) is None


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "x"),
        (grpc.StatusCode.NOT_FOUND, "x"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "x"),
        (grpc.StatusCode.UNAVAILABLE, QUEUE_FULL),
    ],
)
def test_a_server_that_refuses_is_there(server, predictor, code, text):
    server.steps = [(code, text)]
    for _ in range(3 * FAILURES):
        attempt(predictor)

    assert len(server.requests) == 3 * FAILURES
    assert state_of("stable") == "closed"


def test_calls_that_were_given_too_little_time_open_nothing(server, predictor):
    server.steps = ["hang"]
    for _ in range(2 * FAILURES):
        with deadline.within(0.05):
            assert attempt(predictor) is ModelServerTimeout

    assert state_of("stable") == "closed"


def test_a_canary_that_is_ill_has_a_breaker_of_its_own(server, predictor):
    canary = TFServingPredictor(f"127.0.0.1:{server.port}", "canary", timeout_s=2.0)
    server.steps = [(grpc.StatusCode.UNAVAILABLE, "away")]
    for _ in range(FAILURES):
        attempt(canary)
    server.steps = [answer()]

    assert (state_of("canary"), state_of("stable")) == ("open", "closed")
    assert attempt(predictor) is None


def test_no_more_than_a_tenth_of_the_calls_is_repeated(server, predictor):
    """Every second request fails, so that the breaker stays closed."""
    calls = 60
    flaky = (grpc.StatusCode.UNAVAILABLE, "ill")
    server.steps = [flaky, answer()] * calls

    before = {result: retried(result) for result in ("sent", "refused")}
    failures = [attempt(predictor) for _ in range(calls)]

    retries = len(server.requests) - calls
    assert retried("sent") - before["sent"] == retries
    assert retried("refused") - before["refused"] == failures.count(ModelServerUnavailable)
    assert RETRY_BURST <= retries <= RETRY_BURST + RETRY_SHARE * calls
    assert ModelServerUnavailable in failures


@pytest.mark.parametrize("illness", ["dead", "hanging"])
def test_one_bad_replica_of_two_opens_nothing(illness):
    # A port each of its own: a stopped one is refused, not taken over.
    with serving(ModelServer()) as good, serving(ModelServer()) as bad:
        predictor = TFServingPredictor(f"ipv4:127.0.0.1:{good.port},127.0.0.1:{bad.port}", "stable", timeout_s=0.4)
        wait_until(lambda: attempt(predictor) is None and bad.requests and good.requests)
        if illness == "dead":
            bad.stop()
        bad.steps = ["hang"]
        with ThreadPoolExecutor(8) as pool:
            failures = list(pool.map(lambda _: attempt(predictor), range(60)))

        assert state_of("stable") == "closed"
        assert ModelServerUnavailable not in failures
        assert failures.count(None) >= 30
