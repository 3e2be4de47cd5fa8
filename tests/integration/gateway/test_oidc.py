"""What of a provider's tokens is believed: a small provider that can be made to lie."""

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from structlog.testing import capture_logs

from gateway.app import Doors, create_app
from gateway.oidc import LEEWAY_S, Provider
from gateway.settings import Settings
from tests.doors import PUBLIC_URL, SESSION_KEY, browser
from tests.metadata import METADATA

OUR_KEY = RSAKey.generate_key(2048, {"kid": "1"}, private=True)
OTHER_KEY = RSAKey.generate_key(2048, {"kid": "1"}, private=True)
UNKNOWN_KEY = RSAKey.generate_key(2048, {"kid": "2"}, private=True)
SECRET = "a-client-secret-of-at-least-32-bytes"  # noqa: S105


class Liar:
    """The provider: what it says and how it signs can be changed."""

    def __init__(self) -> None:
        self.issuer = ""
        self.nonce = ""
        self.claims: dict[str, object] = {}
        self.times: dict[str, int] = {}
        self.without: tuple[str, ...] = ()
        self.key, self.algorithm = OUR_KEY, "RS256"
        self.metadata: dict[str, object] = {}
        self.token: dict[str, object] | None = None

    def answer(self, path: str) -> object:
        if path.startswith("/.well-known"):
            endpoints = {name: f"{self.issuer}/{name}" for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")}
            return {"issuer": self.issuer} | endpoints | self.metadata
        if path == "/jwks_uri":
            return {"keys": [OUR_KEY.as_dict(private=False)]}
        return self.token if self.token is not None else {"token_type": "Bearer", "access_token": "x", "id_token": self._sign()}

    def _sign(self) -> str:
        now = int(time.time())
        times = {name: now + seconds for name, seconds in self.times.items()}
        claims = {"iss": self.issuer, "aud": "dermserve", "sub": "4711", "nonce": self.nonce, "iat": now, "exp": now + 60}
        claims = {
            name: value
            for name, value in (claims | {"roles": ["clinician"]} | self.claims | times).items()
            if name not in self.without
        }
        header = {"alg": self.algorithm, "kid": self.key.kid}
        return jwt.encode(header, claims, self.key, algorithms=[self.algorithm])


@pytest.fixture
def liar():
    liar = Liar()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(liar.answer(self.path)).encode()
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        liar.issuer = f"http://127.0.0.1:{server.server_port}"
        yield liar
        server.shutdown()
        thread.join()


class NoModel:
    def live_metadata(self, timeout_s=None):
        return METADATA


@pytest.fixture
def settings(liar, tmp_path):
    (tmp_path / "client.secret").write_text(SECRET)
    (tmp_path / "session.key").write_text(SESSION_KEY)
    return Settings(
        identity="oidc",
        public_url=PUBLIC_URL,
        oidc_issuer=liar.issuer,
        oidc_client_id="dermserve",
        oidc_client_secret_file=str(tmp_path / "client.secret"),
        session_key_file=str(tmp_path / "session.key"),
    )


@pytest.fixture
def attempt(liar, settings):
    """Sign in, as the provider is now. Gives the status, that of the check page, and why not."""

    def attempt():
        person = browser(create_app(settings, NoModel(), Doors(provider=Provider(settings))))
        with capture_logs() as lines:
            page = person.post("/sign-in")
            if page.status_code != 200:
                return page.status_code, 0, _reason(lines)
            question = parse_qs(urlsplit(page.text.partition("; url=")[2].partition('"')[0].replace("&amp;", "&")).query)
            liar.nonce = question["nonce"][0]
            answer = person.get("/sign-in/callback", query_string={"code": "x", "state": question["state"][0]})
        return answer.status_code, person.get("/check").status_code, _reason(lines)

    return attempt


def _reason(lines):
    return "".join(line["reason"] for line in lines if line["event"] == "sign-in failed")


def test_an_honest_provider_is_believed(attempt):
    assert attempt() == (303, 200, "")


def test_attempts_that_are_given_up_do_not_fill_the_cookie(settings):
    person = browser(create_app(settings, NoModel(), Doors(provider=Provider(settings))))
    lengths = {len(person.post("/sign-in").headers["Set-Cookie"]) for _ in range(10)}

    assert max(lengths) < 1000


@pytest.mark.parametrize(
    ("claims", "believed"),
    [
        ({"aud": "another-application"}, False),
        ({"aud": ["another-application"], "azp": "dermserve"}, False),
        ({"aud": ["dermserve", "another-application"]}, False),
        ({"aud": ["dermserve", "another-application"], "azp": "dermserve"}, True),
        ({"iss": "https://evil.example"}, False),
        ({"nonce": "of-another-sign-in"}, False),
        ({"sub": ""}, False),
        ({"sub": 4711}, False),
    ],
    ids=str,
)
def test_a_token_has_to_be_for_us_of_them_and_of_this_sign_in(liar, attempt, claims, believed):
    liar.claims = claims

    status, check, reason = attempt()

    assert (status, check) == ((303, 200) if believed else (400, 303)), reason
    assert bool(reason) != believed


@pytest.mark.parametrize(
    ("times", "believed"),
    [
        ({"exp": -LEEWAY_S - 5}, False),
        ({"exp": 20 - LEEWAY_S}, True),
        ({"iat": 600}, False),
        ({"iat": LEEWAY_S - 20}, True),
        ({"nbf": 600}, False),
    ],
    ids=str,
)
def test_a_token_has_to_be_of_now_as_far_as_clocks_agree(liar, attempt, times, believed):
    liar.times = times

    assert attempt()[:2] == ((303, 200) if believed else (400, 303))


@pytest.mark.parametrize("claim", ["iss", "sub", "aud", "exp", "iat", "nonce"])
def test_a_token_has_to_be_complete(liar, attempt, claim):
    liar.without = (claim,)

    assert attempt()[:2] == (400, 303)


@pytest.mark.parametrize(
    ("key", "algorithm"), [(OTHER_KEY, "RS256"), (UNKNOWN_KEY, "RS256"), (OctKey.import_key(SECRET, {"kid": "1"}), "HS256")]
)
@pytest.mark.parametrize("offered", [None, ["RS256", "HS256", "none"]])
def test_a_token_has_to_be_signed_with_the_providers_private_key(liar, attempt, key, algorithm, offered):
    liar.key, liar.algorithm = key, algorithm
    liar.metadata = {"id_token_signing_alg_values_supported": offered} if offered else {}

    assert attempt()[:2] == (400, 303)


@pytest.mark.parametrize("offered", [None, ["none"], ["RS256", "none"]])
def test_a_token_without_a_signature_is_nothing(liar, attempt, offered):
    liar.metadata = {"id_token_signing_alg_values_supported": offered} if offered else {}
    signed = liar._sign

    def unsigned():
        payload = signed().split(".")[1]
        header = base64.urlsafe_b64encode(b'{"alg": "none", "kid": "1"}').decode().rstrip("=")
        return f"{header}.{payload}."

    liar._sign = unsigned

    assert attempt()[:2] == (400, 303)


@pytest.mark.parametrize("token", [{"token_type": "Bearer", "access_token": "x"}, {"error": "invalid_grant"}, {}, [], "x"])
def test_an_answer_without_a_token_is_nothing(liar, attempt, token):
    liar.token = token

    assert attempt()[:2] == (400, 303)


def test_a_provider_that_calls_itself_otherwise_is_not_the_one(liar, attempt):
    liar.metadata = {"issuer": "https://evil.example"}

    status, _, reason = attempt()

    assert status == 503
    assert "calls itself 'https://evil.example'" in reason
    liar.metadata = {}
    assert attempt() == (303, 200, "")


@pytest.mark.parametrize(
    ("roles", "check"), [("clinician", 200), (["x", "admin"], 200), ("viewer", 403), (7, 403), ({}, 403), ([7], 403)]
)
def test_roles_are_what_they_are_called_and_nothing_else(liar, attempt, roles, check):
    liar.claims = {"roles": roles}

    assert attempt() == (303, check, "")
