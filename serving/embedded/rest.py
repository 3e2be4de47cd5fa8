"""The REST paths that probes and Prometheus read: model status, model metadata, the metrics page."""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import grpc
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2

from serving.embedded.catalogue import Catalogue
from serving.embedded.management import describe_versions
from serving.embedded.monitoring import REQUEST_COUNT, Monitoring
from serving.embedded.prediction import SIGNATURE_FIELD, describe_signatures
from serving.embedded.status import HTTP_STATUS, ServingError

_API = re.compile(r"(?i)/v1/.*")
_STATUS_PATH = re.compile(r"(?i)/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?(/metadata)?")
_PREDICT_PATH = re.compile(r"(?i)/v1/models/[^/:]+(?:/versions/\d+|/labels/[^/:]+)?:(?-i:classify|regress|predict)")
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
                self._answer(*_answer_get(catalogue, metrics, self.path))

        def do_POST(self) -> None:
            self._answer(*_answer_post(self.path))

        def do_HEAD(self) -> None:
            status, kind, _ = _refuse("HEAD", self.path)
            self._answer(status, kind, "")

        def do_OPTIONS(self) -> None:
            is_asked_for_a_page = self.headers.get("Origin", "").startswith(("http://", "https://"))
            self._answer(200 if is_asked_for_a_page else 400, _JSON, "")

        def do_PUT(self) -> None:
            self._answer(*_refuse(self.command, self.path))

        do_DELETE = do_PATCH = do_PUT  # noqa: N815  (the base class looks for these names)

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


def _answer_get(catalogue: Catalogue, metrics: Monitoring, path: str) -> Answer:
    match = _STATUS_PATH.fullmatch(path)
    if match is None:
        return _refuse("GET", path)
    name, version_text, label, wants_metadata = match.groups()
    name = unquote(name or "")
    try:
        version = int(version_text) if version_text else None
        if version is not None and version > _MAX_INT64:
            return 400, _JSON, ""
        if not name:
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, "Missing model name in request.")
        if wants_metadata:
            message = _metadata(catalogue, name, version, unquote(label or ""))
        else:
            message = describe_versions(catalogue, name, version)
    except ServingError as error:
        metrics.count(REQUEST_COUNT, model_name=name, status=error.code.name)
        return _error_answer(error)
    metrics.count(REQUEST_COUNT, model_name=name, status="OK")
    text = json_format.MessageToJson(
        message, preserving_proto_field_name=True, indent=1, always_print_fields_with_no_presence=True, ensure_ascii=False
    )
    return 200, _JSON, f"{text}\n"


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


def _answer_post(path: str) -> Answer:
    if not _PREDICT_PATH.fullmatch(path):
        return _refuse("POST", path)
    message = "the embedded model server answers Predict over gRPC only"
    return _error_answer(ServingError(grpc.StatusCode.UNIMPLEMENTED, message))


def _refuse(method: str, path: str) -> Answer:
    if _API.fullmatch(path):
        return _error_answer(ServingError(grpc.StatusCode.INVALID_ARGUMENT, f"Malformed request: {method} {path}"))
    return 404, "text/html", "<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n"


def _error_answer(error: ServingError) -> Answer:
    return HTTP_STATUS.get(error.code, 500), _JSON, json.dumps({"error": error.message}, indent=4, ensure_ascii=False)
