"""What protects a visitor's browser: headers of every answer, and the refusal of what another site makes it send."""

import secrets
from typing import Final
from urllib.parse import urlsplit

from flask import Flask, Response, current_app, g, request

from gateway import identity
from gateway.errors import CrossSite
from gateway.negotiation import HTML, JSON, prefers
from gateway.settings import Settings, is_loopback

_SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS", "TRACE")
_OWN_SITE: Final = ("same-origin", "none")
"""Of Sec-Fetch-Site: our own page, or the person themselves. A neighbour under the same domain is a stranger."""

_YEAR_S: Final = 365 * 86_400
_NONCE_BYTES: Final = 16

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # To ourselves a browser tells where a form was sent from, or it would send `Origin: null`; to others nothing.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'nonce-{nonce}' 'strict-dynamic'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dermserve"
)
_MACHINE_POLICY: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PROBLEMS: Final = "/problems/"
"""The one place where people and programs look the same thing up."""

_MACHINE_PATHS: Final = ("/api/", "/health/", "/metrics")


def init_app(app: Flask, settings: Settings) -> None:
    """Refuse what comes from other sites; give the templates their nonce. After `identity.init_app`."""
    app.config["IS_HTTPS"] = settings.is_https
    own_host = urlsplit(settings.public_url).netloc
    own_origin = settings.public_url

    @app.before_request
    def refuse_other_sites() -> None:
        # Where nobody is asked, all that tells our own page from one whose site has made its name point to this machine is
        # that name (DNS rebinding).
        if not settings.asks_who and not is_loopback(urlsplit(f"//{request.host}").hostname or ""):
            raise CrossSite("it came under a name that is not this machine's")
        # A key is shown by a program: no site can make a browser add it.
        if request.method in _SAFE_METHODS or identity.current().kind == "key":
            return
        is_own = _is_own(own_origin, own_host or request.host)
        # Without any sign a request comes from a program. One that shows a cookie comes from a browser, and those give a sign.
        if is_own is False or (is_own is None and identity.current().kind == "person"):
            raise CrossSite("another site's page has sent it")

    @app.context_processor
    def tell_every_template() -> dict[str, str]:
        return {"nonce": _nonce()}


def protect(response: Response) -> Response:
    """Add the headers that every answer has."""
    response.headers.update(HEADERS)
    is_page = response.mimetype == "text/html" and not is_for_machines()
    response.headers["Content-Security-Policy"] = _POLICY.format(nonce=_nonce()) if is_page else _MACHINE_POLICY
    if is_page and identity.current().kind == "person":
        response.cache_control.no_store = True
    if current_app.config["IS_HTTPS"]:
        response.headers["Strict-Transport-Security"] = f"max-age={_YEAR_S}"
    return response


def is_for_machines() -> bool:
    """Whether the answer is read by a program."""
    if request.path.startswith(PROBLEMS):
        return prefers(JSON, HTML)
    return request.path.startswith(_MACHINE_PATHS)


def own_path(path: str, otherwise: str) -> str:
    """The path when it is one of this site's."""
    # A browser takes both // and /\ for the beginning of another host's name.
    is_own = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_own else otherwise


def _is_own(own_origin: str, own_host: str) -> bool | None:
    """Whether one of our own pages has sent the request; None when nothing tells (OWASP: fetch metadata, then the origin)."""
    if site := request.headers.get("Sec-Fetch-Site"):
        return site in _OWN_SITE
    source = request.headers.get("Origin") or request.headers.get("Referer")
    if not source:
        return None
    parts = urlsplit(source)
    if own_origin:
        return f"{parts.scheme}://{parts.netloc}" == own_origin
    return parts.netloc == own_host


def _nonce() -> str:
    """Of this answer."""
    if "nonce" not in g:
        g.nonce = secrets.token_urlsafe(_NONCE_BYTES)
    return str(g.nonce)
