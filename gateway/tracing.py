"""The gateway's part of a trace: one span for each request. The steps' are in `metrics.stage` and `model_channel`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from serving import tracing

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_SERVER_ERRORS = 500


class TracedApplication:
    """A WSGI application whose requests are spans, parts of their senders' traces where they have one."""

    def __init__(self, application: "WSGIApplication") -> None:
        self._application = application

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request. Its span is named once its route is known: `describe`."""
        with tracing.serve("request", environ.get("HTTP_TRACEPARENT")):
            return self._application(environ, start_response)


def describe(method: str, route: str, status: int, request_id: str) -> None:
    """Say what the current request was: never its path, its query or what was sent with it.

    Args:
        method: of a route we have; empty for any other.
        route: the template.
        status: of the answer.
        request_id: as in the log.
    """
    attributes: dict[str, tracing.Attribute] = {
        "http.route": route,
        "http.response.status_code": status,
        "dermserve.request_id": request_id,
    }
    if method:
        attributes["http.request.method"] = method
    tracing.describe(f"{method} {route}".strip(), attributes, is_error=status >= _SERVER_ERRORS)
