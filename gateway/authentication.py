"""What a request shows of who has sent it: an API key, a session, or nothing."""

from collections.abc import Callable

from flask import g, request

from gateway import sessions
from gateway.api_keys import ApiKeys
from gateway.identity import ANYBODY, STRANGER, Identity
from gateway.settings import KEYS, NONE, OIDC, Settings

_SCHEME = "bearer"


def identifier(settings: Settings, keys: ApiKeys | None) -> Callable[[], Identity]:
    """Says who has sent the current request.

    Args:
        settings: which ways there are.
        keys: the API keys, where they are one of them.
    """
    if settings.identities == (NONE,):
        return lambda: ANYBODY

    def identify() -> Identity:
        # Only the header: a key in an address would stand in every log on the way.
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == _SCHEME:
            # Whoever shows a key is not asked for a session as well: a script with a wrong key must not act as the person.
            found = keys.identify(token.strip()) if keys and KEYS in settings.identities else None
            g.has_failed = found is None
            return found or STRANGER
        return sessions.identity() if OIDC in settings.identities else STRANGER

    return identify


def has_failed() -> bool:
    """Whether the request shows a key that opens nothing."""
    return bool(g.get("has_failed"))
