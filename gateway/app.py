"""The Flask application, put together from its parts."""

import io
import time
from functools import partial
from pathlib import Path
from typing import IO, Final

import structlog
from flask import Flask, Request, Response, current_app, g, request
from werkzeug.exceptions import RequestEntityTooLarge

from gateway import api, health, identity, lingering, logs, metrics, portal, problems
from gateway.admission import Admission
from gateway.classify import Classifier
from gateway.errors import UploadTooLarge
from gateway.predictor import Predictor
from gateway.settings import Settings

WEB: Final = Path(__file__).parent.parent / "web"

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_MACHINE_PATHS: Final = ("/api/", "/health/", "/metrics")
_log = structlog.get_logger()


class MemoryRequest(Request):
    """Keeps uploads in memory: the base class would write those over 500 kB to a file."""

    def _get_file_stream(self, *_: object, **__: object) -> IO[bytes]:
        return io.BytesIO()


class Application(Flask):
    """Flask with our request class."""

    request_class = MemoryRequest


def create_app(settings: Settings, predictor: Predictor) -> Flask:
    """Assemble the application over a model server."""
    app = Application(__name__, template_folder=str(WEB / "templates"), static_folder=str(WEB / "static"))
    app.config["MAX_CONTENT_LENGTH"] = settings.max_upload_bytes
    admission = Admission(settings.threads, settings.max_waiting, settings.max_wait_s)
    classifier = Classifier(predictor, admission, settings.max_picture_pixels, settings.request_budget_s)
    portal.init_app(app)
    app.register_blueprint(api.blueprint(classifier, admission))
    app.register_blueprint(portal.blueprint(classifier, admission, predictor, settings))
    app.register_blueprint(health.blueprint(predictor))
    app.before_request(_begin)
    identity.init_app(app, lambda: identity.ANYBODY)
    app.after_request(_finish)
    app.register_error_handler(Exception, _explain)
    return app


def _begin() -> None:
    g.started = time.perf_counter()
    g.request_id = logs.request_id(request.headers.get("X-Request-ID"))


def _finish(response: Response) -> Response:
    elapsed = time.perf_counter() - g.started
    # The template of the route, never the path: paths are the client's and have no end.
    route = request.url_rule.rule if request.url_rule else "unmatched"
    metrics.REQUESTS.labels(route, request.method if request.url_rule else "", response.status_code).inc()
    metrics.REQUEST_SECONDS.labels(route).observe(elapsed)
    response.headers.update(SECURITY_HEADERS)
    response.headers["X-Request-ID"] = g.request_id
    _log.info(
        "request",
        id=g.request_id,
        case=logs.case_code(g.request_id),
        method=request.method,
        route=route,
        status=response.status_code,
        seconds=round(elapsed, 4),
    )
    return response


def _explain(error: Exception) -> Response:
    if isinstance(error, RequestEntityTooLarge):
        error = UploadTooLarge(current_app.config["MAX_CONTENT_LENGTH"])
    problem = problems.describe(error)
    metrics.PROBLEMS.labels(problem.slug).inc()
    if problem is problems.INTERNAL:
        _log.error("unexpected error", id=g.request_id, exc_info=error)
    elif problem.status > problems.INTERNAL.status:
        _log.warning("no prediction", id=g.request_id, problem=problem.slug, reason=str(error))
    is_for_machines = request.path.startswith(_MACHINE_PATHS)
    response = problems.to_response(problem) if is_for_machines else portal.render_problem(problem)
    if problem.retry_after_s:
        response.headers["Retry-After"] = str(problem.retry_after_s)
    response.cache_control.no_store = True
    if _is_upload_unread():
        # Once the answer is out.
        response.call_on_close(partial(lingering.throw_away, request.environ, current_app.config["MAX_CONTENT_LENGTH"]))
    return response


def _is_upload_unread() -> bool:
    """Or read in part only. The request keeps its files as soon as it has read the whole form."""
    has_body = bool(request.content_length) or "Transfer-Encoding" in request.headers
    return has_body and "files" not in vars(request)
