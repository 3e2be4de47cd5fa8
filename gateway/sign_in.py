"""Signing in and out: the pages between the portal and the hospital's identity provider."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import structlog
from flask import Blueprint, Response, g, make_response, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response as BaseResponse

from gateway import auditing, identity, metrics, sessions
from gateway.audit.record import Event
from gateway.browser_security import is_for_machines, own_path
from gateway.errors import AuditUnavailable, ProviderUnavailable, SignInFailed
from gateway.identity import public
from gateway.portal import FRAGMENT_HEADER
from gateway.sessions import Person

_NEXT: Final = "next"
"""Where the person wanted to go; in the session while they are at the provider."""

_MAX_PATH: Final = 500
"""Characters of it: a browser drops a cookie of more than 4,096 bytes."""

_log = structlog.get_logger()


class IdentityProvider(Protocol):
    """What is asked of the provider (gateway.oidc)."""

    def begin(self, redirect_uri: str) -> str: ...  # noqa: D102
    def finish(self) -> Person: ...  # noqa: D102
    def sign_out(self, return_uri: str) -> str | None: ...  # noqa: D102


def invite() -> BaseResponse | None:
    """What a stranger gets from a guarded page: the way to the sign-in page; a form, a script and a machine get the problem."""
    if request.method not in ("GET", "HEAD") or is_for_machines() or FRAGMENT_HEADER in request.headers:
        return None
    response = redirect(url_for("sign_in.page", next=request.full_path.rstrip("?")), 303)
    response.cache_control.no_store = True
    return response


def blueprint(provider: IdentityProvider, public_url: str) -> Blueprint:
    """Routes /sign-in, /sign-in/callback, /sign-out and /signed-out."""
    pages = Blueprint("sign_in", __name__)

    @pages.app_context_processor
    def tell_every_template() -> dict[str, Any]:
        return {"signs_in": True, "visitor": identity.current()}

    @pages.after_request
    def keep_nothing(response: Response) -> Response:
        response.cache_control.no_store = True
        return response

    @pages.get("/sign-in")
    @public
    def page() -> BaseResponse:
        """Says where one is taken, and begins with a form: an address alone starts nothing."""
        return make_response(render_template("sign_in.html", wanted=_wanted(request.args.get(_NEXT))))

    @pages.post("/sign-in")
    @public
    def begin() -> str:
        """Off to the provider. Only one attempt at a time is under way in a browser, so the cookie stays small."""
        session.clear()
        with _counted():
            address = provider.begin(public_url + url_for("sign_in.finish"))
        session[_NEXT] = _wanted(request.form.get(_NEXT))
        return render_template("hand_over.html", address=address, signing_out=False)

    @pages.get("/sign-in/callback")
    @public
    def finish() -> BaseResponse:
        """Back from the provider."""
        wanted = _wanted(session.get(_NEXT))
        with _counted():
            person = provider.finish()
        _let_in(person)
        metrics.SIGN_INS.labels("signed_in" if g.identity.role else "without_role").inc()
        _log.info("signed in", id=g.request_id, identity=g.identity.name, role=g.identity.role)
        return redirect(wanted, 303)

    @pages.post("/sign-out")
    @public
    def sign_out() -> BaseResponse:
        """End the session here, then at the provider."""
        _let_out()
        _log.info("signed out", id=g.request_id, identity=identity.current().name)
        g.identity = identity.STRANGER
        address = provider.sign_out(public_url + url_for("sign_in.signed_out"))
        if address is None:
            return redirect(url_for("sign_in.signed_out"), 303)
        return make_response(render_template("hand_over.html", address=address, signing_out=True))

    @pages.get("/signed-out")
    @public
    def signed_out() -> str:
        """The end."""
        return render_template("signed_out.html")

    return pages


def _let_in(person: Person) -> None:
    """Begin the session, unless nobody could say later that it was there."""
    g.identity = sessions.start(person)
    try:
        auditing.write(Event(g.identity.name, "sign_in", g.request_id, "done"))
    except AuditUnavailable:
        sessions.end()
        raise


def _let_out() -> None:
    """First of all the session ends: on a ward's computer it must, even if it cannot be recorded."""
    sessions.end()
    if identity.current() is not identity.STRANGER:
        auditing.write(Event(identity.current().name, "sign_out", g.request_id, "done"))


@contextmanager
def _counted() -> Iterator[None]:
    """What does not come to a good end is counted, and told to whoever keeps the gateway."""
    try:
        yield
    except (SignInFailed, ProviderUnavailable) as error:
        metrics.SIGN_INS.labels("failed" if isinstance(error, SignInFailed) else "unavailable").inc()
        _log.warning("sign-in failed", id=g.request_id, reason=str(error))
        raise


def _wanted(path: str | None) -> str:
    """A path of ours. What is too long for the cookie is not worth keeping."""
    return own_path(path if path and len(path) <= _MAX_PATH else "", url_for("portal.home"))
