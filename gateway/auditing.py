"""What of a request goes into the audit record, and what of the audit record into the request's log line."""

import io
from typing import Final

from flask import Flask, current_app, g, request
from werkzeug.datastructures import FileStorage

from gateway import authentication, identity, metrics, problems
from gateway.audit.record import Action, Event, Head
from gateway.audit.trail import Audit
from gateway.errors import AuditUnavailable, NoConsent, NotIdentified, NotPermitted, PictureError, PredictionError, SignInFailed
from gateway.problems import Problem

_EXTENSION: Final = "dermserve-audit"

_RECORDED: Final[dict[type[Exception], Action]] = {
    NotPermitted: "refused",
    NotIdentified: "refused",
    SignInFailed: "sign_in",
    PictureError: "classify",
    PredictionError: "classify",
}
"""Overload is not among them: its uploads are unread, and a refusal that waits for a disk would be one more load. Of strangers
those are recorded who show a key that opens nothing, which has a limit (gateway.rate_limits): others could fill the disk."""


class RequestAudit:
    """Hands records on and notes the end of the chain for the request's log line, which anchors it where the logs are kept."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def write(self, event: Event) -> Head | None:
        """As the audit does."""
        head = self._audit.write(event)
        if head is not None:
            g.audit_head = str(head)
        return head


def init_app(app: Flask, audit: Audit) -> RequestAudit:
    """The audit of this application's requests."""
    request_audit = app.extensions[_EXTENSION] = RequestAudit(audit)
    return request_audit


def write_problem(error: Exception, problem: Problem) -> Problem:
    """Record a request that got no answer.

    Returns:
        the problem to tell: another one when it cannot be recorded.
    """
    action = next((action for kind, action in _RECORDED.items() if isinstance(error, kind)), None)
    if action is None or (action == "classify" and request.method != "POST"):
        return problem
    if isinstance(error, NotIdentified) and not authentication.has_failed():
        return problem
    try:
        # Without consent not even the digest is taken.
        picture = None if isinstance(error, NoConsent) else _upload()
        write(Event(identity.current().name, action, g.request_id, problem.slug, picture=picture))
    except AuditUnavailable as unavailable:
        return problems.describe(unavailable)
    return problem


def describe_unusable(error: PictureError, picture_id: str, upload: FileStorage) -> Problem:
    """Record and count a picture of a batch that cannot be classified, while others of it may be.

    Returns:
        the problem to tell.

    Raises:
        AuditUnavailable: it could not be recorded.
    """
    problem = problems.describe(error)
    upload.stream.seek(0, io.SEEK_SET)
    write(Event(identity.current().name, "classify", picture_id, problem.slug, picture=upload.read() or None))
    metrics.PROBLEMS.labels(problem.slug).inc()
    return problem


def write_replay(request_id: str, first_id: str, upload: FileStorage) -> None:
    """Record that a kept outcome of a picture is shown once more.

    Raises:
        AuditUnavailable: it could not be recorded.
    """
    upload.stream.seek(0, io.SEEK_SET)
    who = identity.current().name
    write(Event(who, "replay", request_id, "done", reason=first_id, picture=upload.read() or None))


def write(event: Event) -> None:
    """Record what the current request does.

    Raises:
        AuditUnavailable: it could not be recorded.
    """
    audit: RequestAudit = current_app.extensions[_EXTENSION]
    audit.write(event)


def log_fields() -> dict[str, str]:
    """For the canonical line."""
    return {"audit": g.audit_head} if "audit_head" in g else {}


def _upload() -> bytes | None:
    """The picture of a request whose form was read and held one; it is in memory."""
    uploads = [upload for name in request.files for upload in request.files.getlist(name)] if "files" in vars(request) else []
    if len(uploads) != 1:
        return None
    (upload,) = uploads
    upload.stream.seek(0, io.SEEK_SET)
    return upload.read() or None
