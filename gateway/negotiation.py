"""In which form an answer is given: what the client takes (RFC 9110, section 12), of what there is."""

from typing import Final

from flask import Response, request

from gateway.errors import NotAcceptable

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
FHIR: Final = "application/fhir+json"
HTML: Final = "text/html"


def choose(*offered: str) -> str:
    """The offered media type that the client likes best; without a wish the first one.

    Raises:
        NotAcceptable: it takes none of them.
    """
    if not request.accept_mimetypes:
        return offered[0]
    chosen = request.accept_mimetypes.best_match(offered)
    if chosen is None:
        raise NotAcceptable(f"the answer is given as {' or '.join(offered)}")
    return chosen


def prefers(media_type: str, *others: str) -> bool:
    """Whether the client likes it better than the others; false without a wish."""
    return request.accept_mimetypes.best_match([*others, media_type]) == media_type


def depends_on_accept(response: Response) -> Response:
    """A cache must not give one client's form to another."""
    response.vary.add("Accept")
    return response
