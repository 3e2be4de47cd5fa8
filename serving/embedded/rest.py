"""The REST paths that probes and Prometheus read: model status, model metadata, the metrics page."""

import json
import re
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2

from serving.embedded.catalogue import Catalogue
from serving.embedded.management import describe_versions
from serving.embedded.monitoring import REQUEST_COUNT, REQUEST_LATENCY, Monitoring
from serving.embedded.prediction import SIGNATURE_FIELD, describe_signatures
from serving.embedded.status import HTTP_STATUS, ServingError

_API = re.compile(r"(?i)/v1/.*")
_CHOICE = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_STATUS_PATH = re.compile(rf"(?i)/v1/models(?:/(?P<name>[^/:]+))?{_CHOICE}(?P<metadata>/metadata)?")
_PREDICT_PATH = re.compile(rf"(?i)/v1/models/(?P<name>[^/:]+){_CHOICE}:(?P<method>classify|regress|predict)")
_METHODS = {"classify", "regress", "predict"}
"""Spelt so: the real server's pattern takes `:PREDICT`, and nothing behind it does."""
_MAX_INT64 = 2**63 - 1
_JSON = "application/json"
_SILENCE_S = 30
"""How long a connection may say nothing: a caller that is gone must not keep its thread."""

Answer = tuple[int, str, str]
"""Status, content type, body."""


def make_rest_server(
    host: str, port: int, catalogue: Catalogue, metrics: Monitoring, metrics_path: str | None
) -> ThreadingHTTPServer:
    """An HTTP server that is bound but not yet running."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = _SILENCE_S

        def do_GET(self) -> None:
            if metrics_path is not None and self.path == metrics_path:
                self._answer(200, "text/plain", metrics.page())
            else:
                self._answer(*_answer_request(catalogue, metrics, self.command, self.path))

        def do_POST(self) -> None:
            self._answer(*_answer_request(catalogue, metrics, self.command, self.path))

        do_PUT = do_DELETE = do_PATCH = do_POST  # noqa: N815  (the base class looks for these names)

        def do_HEAD(self) -> None:
            status, kind, _ = _answer_request(catalogue, metrics, self.command, self.path)
            self._answer(status, kind, "")

        def do_OPTIONS(self) -> None:
            is_asked_for_a_page = self.headers.get("Origin", "").startswith(("http://", "https://"))
            self._answer(200 if is_asked_for_a_page else 400, _JSON, "")

        def _answer(self, status: int, kind: str, body: str) -> None:
            encoded = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(encoded)))
            if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
                # Nothing here needs a body. Unread it would be taken for the next request, so there is none.
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
            """Probes every few seconds are no news."""

    return ThreadingHTTPServer((host, port), Handler)


def _answer_request(catalogue: Catalogue, metrics: Monitoring, method: str, path: str) -> Answer:
    """Answer a request and count it as the real server does: whatever became of it, and its time if all went well."""
    if not _API.fullmatch(path):
        return 404, "text/html", "<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n"
    started = time.perf_counter()
    patterns = {"GET": _STATUS_PATH, "POST": _PREDICT_PATH}
    match = patterns[method].fullmatch(path) if method in patterns else None
    name = unquote(match["name"] or "") if match else ""
    try:
        if match is None or (method == "POST" and match["method"] not in _METHODS):
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, f"Malformed request: {method} {path}")
        if method == "POST":
            raise ServingError(grpc.StatusCode.UNIMPLEMENTED, "the embedded model server answers Predict over gRPC only")
        message = _describe(catalogue, name, match)
    except ServingError as error:
        metrics.count(REQUEST_COUNT, model_name=name, status=error.code.name)
        body = json.dumps({"error": error.message}, indent=4, ensure_ascii=False) if error.message else ""
        return HTTP_STATUS.get(error.code, 500), _JSON, body
    text = json_format.MessageToJson(
        message, preserving_proto_field_name=True, indent=1, always_print_fields_with_no_presence=True, ensure_ascii=False
    )
    metrics.count(REQUEST_COUNT, model_name=name, status="OK")
    elapsed = (time.perf_counter() - started) * 1e6
    metrics.observe(REQUEST_LATENCY, elapsed, model_name=name, API="", entrypoint="REST")
    return 200, _JSON, f"{text}\n"


def _describe(catalogue: Catalogue, name: str, match: re.Match[str]) -> Message:
    version = int(match["version"]) if match["version"] else None
    if version is not None and version > _MAX_INT64:
        # The real server gives up before it writes its text.
        raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, "")
    if not name:
        raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, "Missing model name in request.")
    described: Message
    if match["metadata"]:
        described = _metadata(catalogue, name, version, unquote(match["label"] or ""))
    else:
        described = describe_versions(catalogue, name, version)
    return described


def _metadata(
    catalogue: Catalogue, name: str, version: int | None, label: str
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    spec = model_pb2.ModelSpec(name=name)
    if version is not None:
        spec.version.value = version
    elif label:
        spec.version_label = label
    request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=[SIGNATURE_FIELD])
    return describe_signatures(catalogue.resolve(spec), request)
