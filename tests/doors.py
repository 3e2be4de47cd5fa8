"""An application behind its doors, without a socket: keys in a file, and a provider that says what a test wants."""

import datetime
from pathlib import Path

from flask import Flask, request

from gateway.api_keys import ApiKeys
from gateway.app import Doors, create_app
from gateway.errors import ProviderUnavailable, SignInFailed
from gateway.key_file import ApiKey, digest, save
from gateway.rate_limits import RateLimits
from gateway.sessions import Person
from gateway.settings import KEYS, OIDC, Settings

SECRET = "s" * 43
BEGINS = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
ENDS = datetime.datetime(2126, 1, 1, tzinfo=datetime.UTC)
PUBLIC_URL = "https://localhost"
PROVIDER_URL = "https://provider.example/auth?state=1"
SESSION_KEY = "k" * 32


class FakeProvider:
    """Signs in whoever `finish` is told to, or fails."""

    def __init__(self, person: Person | None = None, error: Exception | None = None) -> None:
        self.person = person or Person("4711", ("clinician",))
        self.error = error
        self.redirect_uri = ""

    def begin(self, redirect_uri: str) -> str:
        if isinstance(self.error, ProviderUnavailable):
            raise self.error
        self.redirect_uri = redirect_uri
        return PROVIDER_URL

    def finish(self) -> Person:
        if self.error or "code" not in request.args:
            raise self.error or SignInFailed("no code")
        return self.person

    def sign_out(self, return_uri: str) -> str | None:
        return None if self.error else f"https://provider.example/end?return={return_uri}"


def token(name: str, key: str = SECRET) -> str:
    """A key as it is printed once, when it is made."""
    return f"dsk_{name}_{key}"


def header(name: str = "portal", key: str = SECRET) -> dict[str, str]:
    """What a program sends that has the key."""
    return {"Authorization": f"Bearer {token(name, key)}"}


def write_keys(path: Path, **permissions: str) -> Path:
    """A file of keys by their names, with their permissions; the secret is the same."""
    save(path, [ApiKey(name, digest(SECRET), frozenset(text.split()), BEGINS, ENDS) for name, text in permissions.items()])
    return path


def make_app(folder: Path, predictor: object, ways: str, provider: FakeProvider | None = None, **settings: object) -> Flask:
    """The application with `portal` (classify) and `prometheus` (read_metrics) as its keys."""
    values: dict[str, object] = {"identity": ways}
    keys = None
    if KEYS in ways:
        path = write_keys(folder / "keys.json", portal="classify", prometheus="read_metrics")
        keys, values = ApiKeys(path), values | {"api_keys_file": str(path)}
    if OIDC in ways:
        (folder / "session.key").write_text(SESSION_KEY)
        values |= {"session_key_file": str(folder / "session.key"), "public_url": PUBLIC_URL}
    complete = Settings(**(values | settings))
    limits = RateLimits(complete, None).init_app if complete.asks_who or complete.rate_limit else None
    app = create_app(complete, predictor, Doors(keys, (provider or FakeProvider()) if OIDC in ways else None, limits))
    app.testing = True
    return app


def browser(app: Flask):
    """A client that comes as browsers do: over TLS, and saying that our own page has sent it."""
    client = app.test_client()
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    client.environ_base["wsgi.url_scheme"] = "https"
    return client


def sign_in(app: Flask, path: str = "/check"):
    """A browser in which somebody has signed in."""
    client = browser(app)
    assert client.post("/sign-in", data={"next": path}).status_code == 200
    answer = client.get("/sign-in/callback?code=1&state=1")
    assert (answer.status_code, answer.headers["Location"]) == (303, path)
    return client
