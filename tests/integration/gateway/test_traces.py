"""Traces over the whole stack: what a collector gets, and what becomes of the answers when there is none."""

import json
import socket
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from serving.spans import MAX_QUEUED, OtlpTracer
from tests import processes
from tests.pictures import paint

ROUTE = "POST /api/v1/classifications"
PREDICT = "tensorflow.serving.PredictionService/Predict"
REQUESTS = 24
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Receives OTLP over HTTP as a collector does, and keeps it."""

    def __init__(self):
        self.bodies = []
        super().__init__(("127.0.0.1", 0), Receiver)

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self):
        """Every span with the name of its service."""
        found = []
        for body in self.bodies:
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                (service,) = [item.value.string_value for item in group.resource.attributes if item.key == "service.name"]
                found += [(service, span) for scope in group.scope_spans for span in scope.spans]
        return found


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        assert self.path == "/v1/traces"
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


class Traced:
    """What was sent, and what came of it once everything had stopped."""

    def __init__(self, collector, log, answers):
        self.spans = collector.spans()
        self.bodies = b"".join(collector.bodies)
        self.lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        self.answers = answers
        self.children = defaultdict(list)
        for service, span in self.spans:
            self.children[span.parent_span_id].append((service, span))

    def request(self, request_id):
        """The span of one request; None if there is none."""
        spans = [span for _, span in self.spans if attributes(span).get("dermserve.request_id") == request_id]
        return spans[0] if spans else None

    def below(self, span):
        """Name -> service and span of the children."""
        return {child.name: (service, child) for service, child in self.children[span.span_id]}


def attributes(span):
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


def post(address, request_id, data=None, query="", **headers):
    files = {"file": ("Budi.png", paint() if data is None else data)}
    headers = {"X-Request-ID": request_id} | headers
    return requests.post(f"{address}/api/v1/classifications{query}", files=files, headers=headers, timeout=60)


@pytest.fixture(scope="module")
def traced(tiny_base, tmp_path_factory):
    """Requests of every kind through two workers and a model server, which have ended: by then everything must be sent."""
    folder = tmp_path_factory.mktemp("traces")
    collector = Collector()
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    settings = {"GATEWAY_WORKERS": "2", "GATEWAY_TRACES_ENDPOINT": collector.endpoint}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        # Nothing is sent before the end: what the tests find was sent while the programs stopped.
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
        with (
            processes.model_server(tiny_base, folder) as (_, port, _),
            processes.gateway(port, folder, **settings) as (program, address),
        ):
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda number: post(address, f"request-{number}"), range(REQUESTS)))
            answers.append(post(address, "continued", query="?patient=Budi", traceparent=f"00-{TRACE}-{PARENT}-01"))
            answers.append(post(address, "not-sampled", traceparent=f"00-{'1' * 32}-{PARENT}-00"))
            answers.append(post(address, "hostile-1", traceparent="00-" + "x" * 5000, tracestate="patient=Budi"))
            answers.append(post(address, "no-picture", data=b"Budi is no picture"))
            requests.get(f"{address}/Budi", timeout=10)
    yield Traced(collector, program.output, answers)
    collector.shutdown()
    collector.server_close()


def test_a_request_is_one_trace_through_both_programs(traced):
    for number in range(REQUESTS):
        request = traced.request(f"request-{number}")
        assert (request.name, request.kind, request.parent_span_id) == (ROUTE, Span.SPAN_KIND_SERVER, b"")
        stages = traced.below(request)
        assert {"decode", "preprocess", "predict", "decide"} <= stages.keys()
        service, call = traced.below(stages["predict"][1])[PREDICT]
        assert (service, call.kind) == ("dermserve-gateway", Span.SPAN_KIND_CLIENT)
        service, served = traced.below(call)[PREDICT]
        assert (service, served.kind) == ("dermserve-model-server", Span.SPAN_KIND_SERVER)
        steps = traced.below(served)
        of_services = {step: service for step, (service, _) in steps.items()}
        assert of_services == dict.fromkeys(("queue", "run"), "dermserve-model-server")
        run = steps["run"][1]
        assert attributes(run)["dermserve.batch.rows"] >= 1
        assert steps["queue"][1].start_time_unix_nano <= run.start_time_unix_nano < run.end_time_unix_nano
        assert attributes(served)["dermserve.model_version"] == 1
        assert {span.trace_id for span in (call, served, run, *(span for _, span in stages.values()))} == {request.trace_id}


def test_steps_lie_within_what_they_are_part_of(traced):
    """Two programs of one machine, and spans that were made from another clock: within a few milliseconds."""
    slack_ns = 20_000_000
    by_id = {span.span_id: span for _, span in traced.spans}
    for _, span in traced.spans:
        parent = by_id.get(span.parent_span_id)
        if parent:
            assert parent.start_time_unix_nano - slack_ns <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= parent.end_time_unix_nano + slack_ns


def test_no_span_is_without_its_request(traced):
    """A probe, a golden picture and the start make no traces of their own."""
    known = {span.span_id for _, span in traced.spans} | {bytes.fromhex(PARENT)}
    roots = [span for _, span in traced.spans if span.parent_span_id not in known]

    assert {span.kind for span in roots} == {Span.SPAN_KIND_SERVER}
    assert all("http.route" in attributes(span) for span in roots)


def test_a_senders_trace_goes_on_and_its_decision_is_kept(traced):
    continued = traced.request("continued")

    assert (continued.trace_id.hex(), continued.parent_span_id.hex()) == (TRACE, PARENT)
    assert traced.request("not-sampled") is None
    assert b"\x11" * 16 not in {span.trace_id for _, span in traced.spans}
    # What cannot be read begins a trace, and costs nobody the answer.
    assert traced.request("hostile-1").parent_span_id == b""
    assert [answer.status_code for answer in traced.answers] == [200] * (REQUESTS + 3) + [415]


def test_spans_say_what_was_asked_by_its_route_and_nothing_of_who_or_what(traced):
    refused = traced.request("no-picture")

    assert b"Budi" not in traced.bodies
    assert attributes(refused) == {
        "http.request.method": "POST",
        "http.route": "/api/v1/classifications",
        "http.response.status_code": 415,
        "dermserve.request_id": "no-picture",
    }
    # The stage failed; that the sender made a mistake is no error of ours.
    assert traced.below(refused)["decode"][1].status.code == Status.STATUS_CODE_ERROR
    assert refused.status.code == Status.STATUS_CODE_UNSET
    assert "unmatched" in {span.name for _, span in traced.spans}
    assert not [event for _, span in traced.spans for event in span.events]


def test_a_line_of_the_log_names_its_trace(traced):
    by_id = {line["id"]: line for line in traced.lines if line.get("event") == "request"}

    assert by_id["continued"]["trace_id"] == TRACE
    assert by_id["request-0"]["trace_id"] == traced.request("request-0").trace_id.hex()


@pytest.fixture(params=["closed", "silent"])
def away(request):
    """Address of a collector where nobody listens, or where somebody does and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if request.param == "closed":
            listener.close()
        yield f"http://127.0.0.1:{port}"


def test_a_collector_that_is_away_costs_spans_and_nothing_else(tiny_server, tmp_path, away):
    settings = {"GATEWAY_WORKERS": "1", "GATEWAY_TRACES_ENDPOINT": away, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    with processes.gateway(tiny_server[0], tmp_path, **settings) as (program, address):
        answers = [post(address, f"request-{number}") for number in range(40)]
        processes.wait_until(lambda: processes.read_metrics(address).get(("spans_total", "lost"), 0) > 0)
        told_s = time.monotonic()
        program.stop()
        stopped_s = time.monotonic() - told_s

    assert {answer.status_code for answer in answers} == {200}
    # Two seconds of trying, one call that had begun before.
    assert stopped_s < 8
    assert program.process.returncode == 0
    # gunicorn's own lines and ours; a library without a handler of its own writes its bare text.
    assert not [line for line in program.output.splitlines() if not line.startswith(("[", "{"))]


def test_what_waits_for_a_collector_is_bounded_and_so_is_the_time_at_the_end(away):
    lost = []
    tracer = OtlpTracer("test", away, 1.0, lambda result, spans: lost.append((result, spans)))
    for _ in range(4 * MAX_QUEUED):
        with tracer.serve("request", None):
            pass

    told_s = time.monotonic()
    tracer.close()

    assert time.monotonic() - told_s < 6
    assert {result for result, _ in lost} == {"lost"}
    # A batch or two were under way while the queue was filled.
    assert sum(spans for _, spans in lost) <= 2 * MAX_QUEUED


def is_sampled(traceparent):
    return bool(int(traceparent[-2:], 16) & 1)


def test_the_share_is_of_requests_without_a_trace_and_steps_need_a_request():
    tracer = OtlpTracer("test", f"http://127.0.0.1:{processes.free_port()}", 0.0)
    try:
        with tracer.serve("request", None):
            assert not is_sampled(tracer.traceparent())
        with tracer.serve("request", f"00-{TRACE}-{PARENT}-01"):
            assert tracer.traceparent().startswith(f"00-{TRACE}-")
            assert is_sampled(tracer.traceparent())
            assert PARENT not in tracer.traceparent()
        with tracer.span("step"):
            assert (tracer.traceparent(), tracer.trace_id()) == (None, None)
    finally:
        tracer.close()


def test_a_step_that_fails_says_so_and_not_why():
    collector = Collector()
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    counted = []
    tracer = OtlpTracer("test", collector.endpoint, 1.0, lambda result, spans: counted.append((result, spans)))
    with tracer.serve("request", None), pytest.raises(ValueError, match="Budi"), tracer.span("step"):
        raise ValueError("Budi")
    tracer.close()
    collector.shutdown()
    collector.server_close()

    assert counted == [("sent", 2)]
    spans = {span.name: span for _, span in collector.spans()}
    assert spans["step"].status.code == Status.STATUS_CODE_ERROR
    assert spans["request"].status.code == Status.STATUS_CODE_UNSET
    assert b"Budi" not in b"".join(collector.bodies)
