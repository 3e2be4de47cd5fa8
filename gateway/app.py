"""The Flask application, put together from its parts."""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Final

import structlog
from flask import Flask, Request, Response, current_app, g, request
from werkzeug.exceptions import MethodNotAllowed, RequestEntityTooLarge

from gateway import (
    api,
    auditing,
    authentication,
    browser_security,
    case_pages,
    cases_api,
    check,
    health,
    identity,
    lingering,
    logs,
    metrics,
    portal,
    problems,
    reference,
    sessions,
    sign_in,
    tracing,
)
from gateway.admission import Admission
from gateway.api_keys import ApiKeys
from gateway.audit.trail import NO_AUDIT, Audit
from gateway.case_book import CaseBook
from gateway.cases import figures
from gateway.cases.record import CaseStore
from gateway.classify import Classifier
from gateway.errors import UploadTooLarge
from gateway.idempotency import Answers
from gateway.keeping import CaseKeeper
from gateway.predictor import Predictor
from gateway.settings import Settings
from gateway.sign_in import IdentityProvider

WEB: Final = Path(__file__).parent.parent / "web"
_UNAUTHORIZED: Final = 401
_REDIRECTED: Final = 300
_log = structlog.get_logger()


class MemoryRequest(Request):
    """Keeps uploads in memory: the base class would write those over 500 kB to a file."""

    def _get_file_stream(self, *_: object, **__: object) -> IO[bytes]:
        return io.BytesIO()


class Application(Flask):
    """Flask with our request class."""

    request_class = MemoryRequest


@dataclass(frozen=True)
class Doors:
    """What the settings' ways in need. What is left out is not loaded either (gateway.wsgi).

    Attributes:
        keys: the API keys.
        provider: where people sign in.
        limit_rates: prepares an application to count requests.
    """

    keys: ApiKeys | None = None
    provider: IdentityProvider | None = None
    limit_rates: Callable[[Flask], None] | None = None


NO_DOORS: Final = Doors()


def create_app(
    settings: Settings,
    predictor: Predictor,
    doors: Doors = NO_DOORS,
    answers: Answers | None = None,
    audit: Audit = NO_AUDIT,
    case_store: CaseStore | None = None,
) -> Flask:
    """Assemble the application over a model server, behind the doors of the settings.

    Args:
        settings: the whole configuration.
        predictor: the model server.
        doors: the ways in.
        answers: where those of idempotent requests are kept.
        audit: takes a record of what is done, before it is answered.
        case_store: the case record.
    """
    app = Application(__name__, template_folder=str(WEB / "templates"), static_folder=str(WEB / "static"))
    app.config["MAX_CONTENT_LENGTH"] = settings.max_upload_bytes
    admission = Admission(settings.threads, settings.max_waiting, settings.max_wait_s)
    request_audit = auditing.init_app(app, audit)
    classifier = Classifier(predictor, admission, settings.max_picture_pixels, settings.request_budget_s, request_audit)
    app.extensions["classifier"] = classifier
    portal.init_app(app)
    app.register_blueprint(api.blueprint(classifier, admission, answers))
    app.register_blueprint(reference.blueprint(predictor))
    app.register_blueprint(portal.blueprint(predictor, settings))
    keeper = CaseKeeper(case_store, request_audit) if case_store else None
    app.register_blueprint(check.blueprint(classifier, admission, keeper))
    case_figures = partial(figures.render, figures.Counts(case_store)) if case_store else bytes
    app.register_blueprint(health.blueprint(predictor, case_figures))
    if case_store:
        app.register_blueprint(cases_api.blueprint(case_store, classifier, admission, request_audit))
        app.register_blueprint(case_pages.blueprint(CaseBook(case_store, request_audit)))
    app.before_request(_begin)
    identity.init_app(app, authentication.identifier(settings, doors.keys))
    # Before the limits: what another site makes a browser send must not use up what is its owner's.
    browser_security.init_app(app, settings)
    if doors.limit_rates:
        doors.limit_rates(app)
    if doors.provider:
        sessions.init_app(app, settings)
        app.register_blueprint(sign_in.blueprint(doors.provider, settings.public_url))
    identity.close(app, sign_in.invite if doors.provider else lambda: None)
    app.after_request(_finish)
    app.register_error_handler(Exception, _explain)
    # A series that begins with its first occurrence shows Prometheus no increase, and its alert would miss it.
    for slug in problems.BY_SLUG:
        metrics.PROBLEMS.labels(slug)
    for rule in app.url_map.iter_rules():
        if "POST" in (rule.methods or ()):
            metrics.expect_failures(rule.rule, "POST")
    return app


def _begin() -> None:
    g.started = time.perf_counter()
    g.request_id = logs.request_id(request.headers.get("X-Request-ID"))


def _finish(response: Response) -> Response:
    elapsed = time.perf_counter() - g.started
    # The template of the route, never the path: paths are the client's and have no end.
    route = request.url_rule.rule if request.url_rule else "unmatched"
    metrics.REQUESTS.labels(route, request.method if request.url_rule else "", response.status_code).inc()
    tracing.describe(request.method if request.url_rule else "", route, response.status_code, g.request_id)
    metrics.REQUEST_SECONDS.labels(route).observe(elapsed)
    if request.method == "POST" and response.status_code < _REDIRECTED:
        metrics.ACCEPTED_SECONDS.labels(route).observe(elapsed)
    browser_security.protect(response)
    response.headers["X-Request-ID"] = g.request_id
    _log.info(
        "request",
        id=g.request_id,
        case=logs.case_code(g.request_id),
        identity=identity.current().name,
        method=request.method,
        route=route,
        status=response.status_code,
        seconds=round(elapsed, 4),
        **auditing.log_fields(),
    )
    return response


def _explain(error: Exception) -> Response:
    if isinstance(error, RequestEntityTooLarge):
        error = UploadTooLarge(current_app.config["MAX_CONTENT_LENGTH"])
    problem = auditing.write_problem(error, problems.describe(error))
    metrics.PROBLEMS.labels(problem.slug).inc()
    if problem is problems.INTERNAL:
        _log.error("unexpected error", id=g.request_id, exc_info=error)
    elif problem.status > problems.INTERNAL.status:
        _log.warning("no prediction", id=g.request_id, problem=problem.slug, reason=str(error))
    response = api.render_problem(problem) if browser_security.is_for_machines() else _render_page(problem)
    if problem.retry_after_s:
        response.headers["Retry-After"] = str(problem.retry_after_s)
    if problem.status == _UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        response.headers["Allow"] = ", ".join(error.valid_methods or ())
    response.cache_control.no_store = True
    if _is_upload_unread():
        # Once the answer is out.
        response.call_on_close(partial(lingering.throw_away, request.environ, current_app.config["MAX_CONTENT_LENGTH"]))
    return response


def _render_page(problem: problems.Problem) -> Response:
    """Should the page fail as well, the problem is told all the same."""
    try:
        return portal.render_problem(problem)
    except Exception as error:  # noqa: BLE001  (the edge: nobody is left who could tell it)
        _log.error("unexpected error in a problem's page", id=g.request_id, exc_info=error)
        return problems.to_response(problem)


def _is_upload_unread() -> bool:
    """Or read in part only. The request keeps its files as soon as it has read the whole form."""
    has_body = bool(request.content_length) or "Transfer-Encoding" in request.headers
    return has_body and "files" not in vars(request)
