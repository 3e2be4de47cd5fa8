"""The session of a person who has signed in: a signed cookie with the account, the role and two times, and nothing else."""

import hashlib
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flask import Flask, Request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from itsdangerous import BadSignature

from gateway.identity import ROLES, STRANGER, Identity
from gateway.settings import Settings, SettingsError

IDLE_S: Final = 30 * 60
LONGEST_S: Final = 8 * 3600
"""A shift. What the provider says of a person, their role above all, is not older than this."""

LEEWAY_S: Final = 30
"""By how much the clocks of two gateways may differ."""

_REFRESH_S: Final = 60
"""The cookie is written again when its time of use is older than this, and not with every answer."""

_MIN_KEY_BYTES: Final = 32
_ACCOUNT: Final = re.compile(r"[!-?A-~]{1,255}")
"""Printable ASCII but no @: an identifier that may be an e-mail address is kept as its hash."""


@dataclass(frozen=True)
class Person:
    """What the identity provider says of who has signed in.

    Attributes:
        subject: the account there.
        roles: theirs, as the provider calls them.
    """

    subject: str
    roles: tuple[str, ...]


class _Sessions(SecureCookieSessionInterface):
    digest_method = staticmethod(hashlib.sha256)

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """As Flask does, but for the age: it would refuse what another gateway has signed whose clock is a second ahead."""
        serializer = self.get_signing_serializer(app)
        if serializer is None:
            return None
        try:
            return self.session_class(serializer.loads(request.cookies.get(self.get_cookie_name(app), "")))
        except BadSignature:
            return self.session_class()


def init_app(app: Flask, settings: Settings) -> None:
    """Prepare the application for sessions.

    Raises:
        SettingsError: the file of keys cannot be read, or a key in it is too short.
    """
    newest, *older = _read_keys(Path(settings.session_key_file))
    app.session_interface = _Sessions()
    app.config.update(
        SECRET_KEY=newest,
        SECRET_KEY_FALLBACKS=older,
        # With this prefix browsers take the cookie from this host over TLS only: no neighbour of the same domain can set it.
        SESSION_COOKIE_NAME="__Host-dermserve" if settings.is_https else "dermserve",
        SESSION_COOKIE_SECURE=settings.is_https,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_PATH="/",
    )


def start(person: Person) -> Identity:
    """Begin the session of somebody who has just signed in. Nothing of what the cookie held before is left."""
    now, subject = int(time.time()), person.subject
    session.clear()
    session.update(
        account=subject if _ACCOUNT.fullmatch(subject) else f"sha256-{hashlib.sha256(subject.encode()).hexdigest()[:32]}",
        role=next((role for role in ROLES if role in person.roles), ""),
        began=now,
        used=now,
    )
    return identity()


def end() -> None:
    """Forget the person. The browser is told to drop the cookie."""
    session.clear()


def identity() -> Identity:
    """Whose session the request shows; a stranger's, when there is none or its time is over."""
    if "account" not in session:
        return STRANGER
    now = int(time.time())
    # Without a time, as a release of another age may have written it, it is over.
    if not (-LEEWAY_S <= now - session.get("used", 0) < IDLE_S and -LEEWAY_S <= now - session.get("began", 0) < LONGEST_S):
        session.clear()
        return STRANGER
    if now - session["used"] >= _REFRESH_S:
        session["used"] = now
    role = session.get("role", "")
    return Identity(f"person:{session['account']}", ROLES.get(role, frozenset()), role)


def _read_keys(path: Path) -> list[bytes]:
    try:
        keys = [line.strip() for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise SettingsError(f"GATEWAY_SESSION_KEY_FILE: {path}: {error.strerror}") from error
    if not keys or min(map(len, keys)) < _MIN_KEY_BYTES:
        raise SettingsError(f"GATEWAY_SESSION_KEY_FILE: {path} needs a line, and {_MIN_KEY_BYTES} bytes in each")
    return keys
