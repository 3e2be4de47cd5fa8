"""Domain exception -> problem (RFC 9457). The only place where an error gets a status."""

import json
from dataclasses import dataclass
from typing import Final, Literal

from flask import Response, g
from werkzeug.exceptions import HTTPException

from gateway.errors import (
    AuditUnavailable,
    BadIdempotencyKey,
    BadParameter,
    BrokenPicture,
    CaseNotFound,
    CasesUnavailable,
    CrossSite,
    GatewayError,
    GatewayOverloaded,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    IdempotencyNotConfigured,
    IdempotencyUnavailable,
    InvalidCaseRequest,
    InvalidModelAnswer,
    ModelServerOverloaded,
    ModelServerTimeout,
    ModelServerUnavailable,
    NoConsent,
    NoPicture,
    NotAcceptable,
    NotAPicture,
    NotIdentified,
    NotPermitted,
    OverlayNotKept,
    PictureError,
    PictureTooLarge,
    PictureTooSmall,
    Polyglot,
    ProviderUnavailable,
    RequestError,
    SignInFailed,
    Stopping,
    TooManyPictures,
    UploadTooLarge,
)

RETRY_AFTER_S: Final = 2

INSTANCES: Final = "urn:dermserve:request:"
"""Before the id of the request."""


@dataclass(frozen=True)
class Problem:
    """What a client is told.

    Attributes:
        slug: stable name; `/problems/<slug>` is its type.
        status: of HTTP.
        title: the same for every occurrence.
        detail: of this occurrence; never an internal text.
        retry_after_s: when it is worth trying again.
    """

    slug: str
    status: int
    title: str
    detail: str = ""
    retry_after_s: int | None = None


_OVERLOADED: Final = Problem("overloaded", 503, "Too many requests at once", retry_after_s=RETRY_AFTER_S)

TABLE: Final[dict[type[GatewayError], Problem]] = {
    NoPicture: Problem("no-picture", 400, "No picture was sent"),
    NoConsent: Problem("no-consent", 422, "Consent was not given"),
    NotAPicture: Problem("not-a-picture", 415, "The file is not a picture in a format we read"),
    BrokenPicture: Problem("broken-picture", 422, "The picture is damaged or not complete"),
    Polyglot: Problem("polyglot", 415, "The file is a picture and another kind of file at once"),
    UploadTooLarge: Problem("upload-too-large", 413, "The upload is too large"),
    PictureTooLarge: Problem("picture-too-large", 413, "The picture has too many pixels"),
    PictureTooSmall: Problem("picture-too-small", 422, "The picture is too small"),
    # The same for no key, a wrong one and one that has expired: whoever tries keys learns nothing.
    NotIdentified: Problem("not-signed-in", 401, "This needs somebody who is signed in, or a key"),
    NotPermitted: Problem("not-permitted", 403, "You may not do this"),
    CrossSite: Problem("cross-site", 403, "Another site has sent this request"),
    SignInFailed: Problem("sign-in-failed", 400, "The sign-in was not completed"),
    ProviderUnavailable: Problem(
        "provider-unavailable", 503, "The identity provider does not answer", retry_after_s=RETRY_AFTER_S
    ),
    AuditUnavailable: Problem("audit-unavailable", 503, "The audit record cannot be written", retry_after_s=RETRY_AFTER_S),
    CaseNotFound: Problem("case-not-found", 404, "There is no such case"),
    InvalidCaseRequest: Problem("invalid-case-request", 422, "The request about cases is not valid"),
    CasesUnavailable: Problem("cases-unavailable", 503, "The case record is not available", retry_after_s=RETRY_AFTER_S),
    ModelServerUnavailable: Problem("model-unavailable", 503, "No model is available", retry_after_s=RETRY_AFTER_S),
    # Which of the two it was, is no concern of the client; the metrics tell.
    GatewayOverloaded: _OVERLOADED,
    ModelServerOverloaded: _OVERLOADED,
    Stopping: Problem("stopping", 503, "This process stops", retry_after_s=RETRY_AFTER_S),
    ModelServerTimeout: Problem("model-timeout", 504, "The model did not answer in time"),
    InvalidModelAnswer: Problem("invalid-model-answer", 503, "The model's answer cannot be shown"),
    BadParameter: Problem("bad-parameter", 400, "A parameter has a value that it does not take"),
    NotAcceptable: Problem("not-acceptable", 406, "The answer cannot be given in that form"),
    TooManyPictures: Problem("too-many-pictures", 422, "More pictures than one request may have"),
    BadIdempotencyKey: Problem("bad-idempotency-key", 400, "The Idempotency-Key cannot be used"),
    IdempotencyKeyReused: Problem("idempotency-key-reused", 422, "The Idempotency-Key was used for another request"),
    IdempotencyInProgress: Problem(
        "idempotency-in-progress",
        409,
        "The first request with this Idempotency-Key is still at work",
        retry_after_s=RETRY_AFTER_S,
    ),
    IdempotencyNotConfigured: Problem("idempotency-not-configured", 501, "This gateway keeps no answers"),
    IdempotencyUnavailable: Problem(
        "idempotency-unavailable", 503, "The promise of an Idempotency-Key cannot be given", retry_after_s=RETRY_AFTER_S
    ),
    OverlayNotKept: Problem("overlay-not-kept", 400, "An answer with a picture in it is not kept"),
}
NOT_FOUND: Final = Problem("not-found", 404, "There is nothing at this address")
METHOD_NOT_ALLOWED: Final = Problem("method-not-allowed", 405, "This address does not take this method")
BAD_REQUEST: Final = Problem("bad-request", 400, "The request cannot be read")
TOO_MANY_REQUESTS: Final = Problem("too-many-requests", 429, "Too many requests from you")
INTERNAL: Final = Problem("internal-error", 500, "Something went wrong on our side")

_BY_STATUS: Final = {
    400: BAD_REQUEST,
    404: NOT_FOUND,
    405: METHOD_NOT_ALLOWED,
    413: TABLE[UploadTooLarge],
    429: TOO_MANY_REQUESTS,
}

BY_SLUG: Final = {
    problem.slug: problem
    for problem in (*TABLE.values(), NOT_FOUND, METHOD_NOT_ALLOWED, BAD_REQUEST, TOO_MANY_REQUESTS, INTERNAL)
}
"""Every problem that there is, by the last part of its type."""

Step = Literal["repeat", "correct", "permission", "report"]
ADVICE: Final[dict[Step, str]] = {
    "repeat": "Send the same request again after the seconds in Retry-After, or some seconds; wait longer each time.",
    "correct": "Correct the request or choose another picture; the same request will fail again.",
    "permission": "Sign in, or use a key that may do this; the same request will fail again.",
    "report": "Do not repeat it at once. If it stays so, tell whoever runs the gateway, with the id of the request.",
}
"""What a client does next."""

_REPEATED: Final = frozenset({429, 504})
_NOT_PERMITTED: Final = frozenset({401, 403})


def next_step(problem: Problem) -> Step:
    """What a client does about a problem, for a program to go by."""
    if problem.retry_after_s or problem.status in _REPEATED:
        return "repeat"
    if problem.status in _NOT_PERMITTED:
        return "permission"
    return "correct" if problem.status < INTERNAL.status else "report"


def describe(error: Exception) -> Problem:
    """What to tell of any exception. A text that was not written for clients is not told."""
    if isinstance(error, PictureError | RequestError | InvalidCaseRequest):
        entry = TABLE[type(error)]
        return Problem(entry.slug, entry.status, entry.title, str(error), entry.retry_after_s)
    if isinstance(error, GatewayError):
        return TABLE[type(error)]
    if isinstance(error, HTTPException) and error.code in _BY_STATUS:
        return _BY_STATUS[error.code]
    if isinstance(error, HTTPException) and error.code is not None and error.code < INTERNAL.status:
        return Problem("bad-request", error.code, BAD_REQUEST.title)
    return INTERNAL


def to_document(problem: Problem, request_id: str) -> dict[str, str | int]:
    """Its members, of one occurrence."""
    document: dict[str, str | int] = {
        "type": f"/problems/{problem.slug}",
        "title": problem.title,
        "status": problem.status,
        "instance": f"{INSTANCES}{request_id}",
    }
    if problem.detail:
        document["detail"] = problem.detail
    return document


def to_response(problem: Problem) -> Response:
    """As application/problem+json."""
    document = to_document(problem, g.request_id)
    return Response(json.dumps(document) + "\n", problem.status, content_type="application/problem+json")
