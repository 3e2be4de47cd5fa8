"""What probes and Prometheus read from a model server: the REST status, the metrics page, the health service.

The server is started here, because what it counts is compared: the embedded one, and tensorflow_model_server where it is on the
PATH. These tests do not run against TFS_ADDRESS alone. What is expected was read in the sources of TensorFlow Serving 2.20.0
(http_server.cc, http_rest_api_util.cc, prometheus_exporter.cc, server.cc) or observed on it.
"""

import http.client
import json
import re
import shutil
from contextlib import closing

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc

from tests import processes
from tests.processes import wait_until

PAGE = "/monitoring/prometheus/metrics"
PREFIX = ":tensorflow:serving:"
METRICS = {
    "request_count": ("counter", {"model_name", "status"}),
    "request_latency": ("histogram", {"model_name", "API", "entrypoint"}),
    "runtime_latency": ("histogram", {"model_name", "API", "runtime"}),
    "model_warmup_latency": ("histogram", {"model_path", "status"}),
    "model_warmup_records_read": ("counter", {"model_path", "status"}),
    "batching_session:queuing_latency": ("histogram", {"thread_pool_name"}),
    "batching_session:wrapped_run_count": ("counter", set()),
    "batching_session:padding_size": ("histogram", {"execution_batch_size"}),
    "batching_session:input_batch_size": ("histogram", set()),
    "batching_session:processed_batch_size": ("histogram", set()),
}
"""Kind and labels of what our dashboards and alerts may use; the real server has more."""


class Server:
    def __init__(self, channel, rest_port, base):
        self.channel = channel
        self.base = base
        self._rest_port = rest_port

    def get(self, path, method="GET", **headers):
        with closing(http.client.HTTPConnection("127.0.0.1", self._rest_port, timeout=30)) as connection:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.headers["Content-Type"], response.read().decode()

    def series(self, name):
        """Labels -> value of the lines that begin with this name."""
        lines = self.get(PAGE)[2].splitlines()
        found = [re.fullmatch(rf"{PREFIX}{name}{{(.*)}} (\S+)", line) for line in lines]
        return {frozenset(re.findall(r'(\w+)="([^"]*)"', match[1])): float(match[2]) for match in found if match}

    def total(self, name, **labels):
        return sum(value for found, value in self.series(name).items() if labels.items() <= found)

    def predict(self, name="lesion", **spec):
        return prediction_service_pb2_grpc.PredictionServiceStub(self.channel).Predict(
            predict_request(name, **spec), timeout=60
        )


def predict_request(name="lesion", **spec):
    images = tf.make_tensor_proto(np.full((1, 224, 224, 3), 51, np.uint8))
    return predict_pb2.PredictRequest(model_spec={"name": name, **spec}, inputs={"images": images})


@pytest.fixture(scope="module", params=list(processes.MODEL_SERVERS))
def server(request, tiny_base, tmp_path_factory):
    """One that has warmed up with two records and answered a request."""
    folder = tmp_path_factory.mktemp("pages")
    base = shutil.copytree(tiny_base, folder / "lesion")
    log = prediction_log_pb2.PredictionLog(predict_log={"request": predict_request()})
    with tf.io.TFRecordWriter(str(base / "1" / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        for _ in range(2):
            writer.write(log.SerializeToString())
    with (
        processes.model_server(base, folder, program=processes.MODEL_SERVERS[request.param]) as (_, port, rest_port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        started = Server(channel, rest_port, base)
        started.predict()
        # An answer may be on its way before its time is counted, which is what is counted last.
        wait_until(lambda: started.series("request_latency_count"))
        yield started


def test_the_metrics_page_is_text_without_help(server):
    status, kind, page = server.get(PAGE)

    assert (status, kind) == (200, "text/plain")
    assert page.endswith("\n")
    assert "# HELP" not in page


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_has_its_name_kind_and_labels(server, name):
    kind, labels = METRICS[name]

    assert server.get(PAGE)[2].splitlines().count(f"# TYPE {PREFIX}{name} {kind}") == 1
    if kind == "counter":
        series = server.series(name)
        assert not server.series(f"{name}_total")
    else:
        series = server.series(f"{name}_count")
        assert series.keys() == server.series(f"{name}_sum").keys()
    assert series
    assert all({label for label, _ in found} == labels for found in series)


def test_a_histogram_counts_up_to_infinity(server):
    wanted = {("model_name", "lesion"), ("API", "Predict"), ("entrypoint", "GRPC")}
    buckets = {
        float(dict(found)["le"]): count for found, count in server.series("request_latency_bucket").items() if wanted <= found
    }

    bounds = sorted(buckets)
    # In microseconds; the server writes six digits of each.
    assert bounds[:-1] == pytest.approx([10 * 1.8**power for power in range(33)], rel=1e-5)
    assert bounds[-1] == float("inf")
    counts = [buckets[bound] for bound in bounds]
    assert counts == sorted(counts)
    assert counts[-1] == server.series("request_latency_count")[frozenset(wanted)] >= 1


def test_the_warm_up_is_counted_by_path(server):
    labels = {"model_path": f"{server.base}/1", "status": "OK"}

    assert server.total("model_warmup_records_read", **labels) == 2
    assert server.total("model_warmup_latency_count", **labels) == 1


@pytest.mark.parametrize(
    ("name", "spec", "status"),
    [
        ("lesion", {}, "OK"),
        ("lesion", {"signature_name": "nothing"}, "FAILED_PRECONDITION"),
        ("other", {}, "NOT_FOUND"),
        ("", {}, "INVALID_ARGUMENT"),
    ],
)
def test_each_predict_is_counted_by_its_outcome_and_timed_if_it_went_well(server, name, spec, status):
    def counts():
        return (
            server.total("request_count", model_name=name, status=status),
            server.total("request_latency_count", model_name=name, API="Predict", entrypoint="GRPC"),
            server.total("runtime_latency_count", model_name=name, API="Predict", runtime="TF1"),
        )

    counted, timed, ran = counts()
    if status == "OK":
        server.predict(name, **spec)
    else:
        with pytest.raises(grpc.RpcError) as caught:
            server.predict(name, **spec)
        assert caught.value.code().name == status

    went_well = int(status == "OK")
    wait_until(lambda: counts() == (counted + 1, timed + went_well, ran + went_well))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models/lesion", "OK"),
        ("GET", "/v1/models/lesion/metadata", "OK"),
        ("GET", "/v1/models/other", "NOT_FOUND"),
        ("GET", "/v1/models", "INVALID_ARGUMENT"),
        ("POST", "/v1/models/lesion", "INVALID_ARGUMENT"),
    ],
)
def test_rest_calls_are_counted_and_timed_too(server, method, path, status):
    """API is empty for a path that asks for no prediction (observed). Under which model each is counted is left open."""

    def counts():
        return server.total("request_count", status=status), server.total("request_latency_count", entrypoint="REST", API="")

    counted, timed = counts()
    server.get(path, method)

    wait_until(lambda: counts() == (counted + 1, timed + int(status == "OK")))


def test_the_status_is_printed_with_an_indent_of_one(server):
    status, kind, body = server.get("/v1/models/lesion")

    assert (status, kind) == (200, "application/json")
    version = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert json.loads(body) == {"model_version_status": [version]}
    assert body.startswith('{\n "model_version_status": [\n  {\n   "version": "1",\n')


@pytest.mark.parametrize("path", ["/v1/models/lesion/versions/1", "/v1/models/lesion/labels/anything", "/V1/MODELS/lesion"])
def test_the_status_has_more_than_one_path(server, path):
    """A label is passed over, and the case of the path does not matter."""
    assert server.get(path) == server.get("/v1/models/lesion")


@pytest.mark.parametrize("path", ["", "/versions/1", "/labels/stable"])
def test_readiness_is_the_metadata_of_what_answers(server, path):
    status, kind, body = server.get(f"/v1/models/lesion{path}/metadata")

    assert (status, kind) == (200, "application/json")
    described = json.loads(body)
    assert described["model_spec"]["version"] == "1"
    assert "serving_default" in described["metadata"]["signature_def"]["signature_def"]


REFUSED = [
    ("GET", "/v1/models/other", 404, "Could not find any versions of model other"),
    ("GET", "/v1/models/lesion/versions/4", 404, "Could not find version 4 of model lesion"),
    ("GET", "/v1/models/lesion/versions/99999999999999999999", 400, None),
    ("GET", "/v1/models/lesion/versions/4/metadata", 404, "Servable not found for request: Specific(lesion, 4)"),
    ("GET", "/v1/models/lesion/labels/other/metadata", 400, "Unrecognized servable version label: other"),
    ("GET", "/v1/models/haut%C3%A4", 404, "Could not find any versions of model hautä"),
    ("GET", "/v1/models/lesion?x=1", 404, "Could not find any versions of model lesion?x=1"),
    ("GET", "/v1/models", 400, "Missing model name in request."),
    ("GET", "/v1/models/", 400, "Malformed request: GET /v1/models/"),
    ("GET", "/v1/models/lesion:predict", 400, "Malformed request: GET /v1/models/lesion:predict"),
    ("GET", "/v1/elsewhere", 400, "Malformed request: GET /v1/elsewhere"),
    ("POST", "/v1/models/lesion", 400, "Malformed request: POST /v1/models/lesion"),
    ("POST", "/v1/models/lesion:PREDICT", 400, "Malformed request: POST /v1/models/lesion:PREDICT"),
    ("PUT", "/v1/models/lesion", 400, "Malformed request: PUT /v1/models/lesion"),
    ("HEAD", "/v1/models/lesion", 400, None),
]


@pytest.mark.parametrize(("method", "path", "status", "text"), REFUSED)
def test_rest_refuses(server, method, path, status, text):
    body = f'{{\n    "error": "{text}"\n}}' if text else ""

    assert server.get(path, method) == (status, "application/json", body)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize("path", ["/elsewhere", "/monitoring", "/monitoring/prometheus/other"])
def test_other_paths_are_not_found_and_the_answer_is_no_json(server, method, path):
    status, kind, body = server.get(path, method)

    assert (status, kind.split(";")[0]) == (404, "text/html")
    assert "404 Not Found" in body


@pytest.mark.parametrize(("headers", "status"), [({"Origin": "https://example.org"}, 200), ({}, 400)])
def test_a_browser_may_ask_what_it_may_ask(server, headers, status):
    answer = server.get("/v1/models/lesion", "OPTIONS", **headers)

    assert (answer[0], answer[2]) == (status, "")


def test_there_is_no_grpc_health_service_unless_a_flag_asks_for_it(server):
    check = server.channel.unary_unary("/grpc.health.v1.Health/Check")

    with pytest.raises(grpc.RpcError) as caught:
        check(b"", timeout=30)

    assert caught.value.code().name == "UNIMPLEMENTED"
