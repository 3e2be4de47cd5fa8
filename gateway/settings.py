"""The gateway's configuration: environment variables GATEWAY_*, read once."""

import dataclasses
import ipaddress
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

PREFIX: Final = "GATEWAY_"

TENSORFLOW_SERVING: Final = "tensorflow-serving"
OPEN_INFERENCE: Final = "open-inference"

NONE: Final = "none"
KEYS: Final = "keys"
OIDC: Final = "oidc"

CALLS: Final = 3
"""Predict timeouts that a picture may take: two halves for a canary that fails, the answer, and the metadata of its version."""

DAY_S: Final = 86_400.0

MAX_WAIT_S: Final = 1.0
"""Half the objective of two seconds for an answer: whoever has waited longer is better off with a refusal now."""

IS_STOPPING: Final = "IS_STOPPING"
"""No setting, but in the application's config: gunicorn.conf.py notes there that the process was told to stop."""


class SettingsError(ValueError):
    """The environment is not a valid configuration; the text names every problem."""


@dataclass(frozen=True)
class Settings:
    """One running gateway's configuration; the fields' names are the variables' names.

    Attributes:
        bind: host:port of the HTTP server.
        workers: gunicorn processes.
        threads: pictures a worker works on at a time; its other threads are for those that wait, and for pages and probes.
        max_waiting: pictures that may be present in a worker beside them: being uploaded, or waiting for their turn.
        model_server: gRPC target, host:port or dns:///name:port.
        model_server_protocol: what it speaks, tensorflow-serving or open-inference.
        model_server_ca: PEM file of the authority that has signed the model server's certificate; empty for plain text.
        model_server_certificate, model_server_key: PEM files that the gateway shows a model server that asks for them.
        model_label: label of the version that answers.
        canary_share: of pictures that the version labelled canary answers, 0 to 1.
        shadow_share: of the others that it is shown as well, without a say in the answer, 0 to 1.
        predict_timeout_s: deadline of one call to the model server, its retry included.
        request_budget_s: for one picture, from the last byte of its upload on; also what a stopping process gives its requests.
        drain_s: how long a process that was told to stop goes on taking requests, while its readiness already fails.
        worker_timeout_s: a worker that hangs for so long is replaced.
        max_upload_bytes: of a whole request body.
        max_picture_pixels: width times height, checked before decoding.
        identity: how whoever asks says who they are: none, or some of keys and oidc, with commas.
        public_url: https://host under which browsers reach the gateway; what is made of it: redirects, cookies, own origin.
        proxies: of ours in front, each of which adds a hop to X-Forwarded-For; no other forwarded header is believed.
        api_keys_file: JSON file of keys, written by `python -m gateway.api_keys`.
        oidc_issuer: https address of the identity provider, as it calls itself.
        oidc_client_id: how it calls us.
        oidc_client_secret_file: file with the secret that it gave us.
        oidc_roles_claim: claim of the ID token that holds a person's roles.
        session_key_file: file with a key in each line; the first one signs sessions, the others still open them.
        rate_limit: classifications of each identity, as in "60 per minute"; empty for no limit.
        redis_url: where processes keep what they share: redis://host:port/database, or rediss:// for TLS; empty for nowhere.
        redis_password_file: that holds its password; empty when it asks for none.
        audit_file: JSON lines of who did what; empty: nothing is recorded.
        cases_database: address of the case record's database, without a password; empty: no case record.
        cases_password_file: holds the password of the database's user.
        golden_period_s: between two checks of one process with the golden picture; 0 for none.
        traces_endpoint: collector that takes OpenTelemetry traces, OTLP over HTTP: http://host:4318; empty for none.
        traces_share: of the requests that come without a trace, 0 to 1; one with a trace is part of it if its sender is.
    """

    bind: str = "127.0.0.1:8000"
    workers: int = 2
    threads: int = 8
    max_waiting: int = 8
    model_server: str = "127.0.0.1:8500"
    model_server_protocol: str = TENSORFLOW_SERVING
    model_server_ca: str = ""
    model_server_certificate: str = ""
    model_server_key: str = ""
    model_label: str = "stable"
    canary_share: float = 0.0
    shadow_share: float = 0.0
    predict_timeout_s: float = 6.0
    request_budget_s: float = 20.0
    drain_s: float = 0.0
    worker_timeout_s: float = 30.0
    max_upload_bytes: int = 20_000_000
    max_picture_pixels: int = 50_000_000
    identity: str = NONE
    public_url: str = ""
    proxies: int = 0
    api_keys_file: str = ""
    oidc_issuer: str = ""
    oidc_client_id: str = ""
    oidc_client_secret_file: str = ""
    oidc_roles_claim: str = "roles"
    session_key_file: str = ""
    rate_limit: str = ""
    redis_url: str = ""
    redis_password_file: str = ""
    audit_file: str = ""
    cases_database: str = ""
    cases_password_file: str = ""
    golden_period_s: float = 60.0
    traces_endpoint: str = ""
    traces_share: float = 1.0

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Read every GATEWAY_* variable.

        Raises:
            SettingsError: unknown names, values of the wrong kind, and limits in the wrong order, all at once.
        """
        fields = {PREFIX + field.name.upper(): field for field in dataclasses.fields(cls)}
        problems = [f"{name} is not a setting" for name in sorted(environ) if name.startswith(PREFIX) and name not in fields]
        values: dict[str, str | int | float] = {}
        for name, field in fields.items():
            if name in environ:
                kind: type[str | int | float] = type(getattr(cls, field.name))
                try:
                    values[field.name] = kind(environ[name])
                except ValueError:
                    problems.append(f"{name} is not of kind {kind.__name__}: {environ[name]!r}")
        settings = cls(**values)  # type: ignore[arg-type]
        problems += settings._problems()
        if problems:
            raise SettingsError("; ".join(problems))
        return settings

    @property
    def max_wait_s(self) -> float:
        """For a picture's turn. The calls must fit in behind it, the rest is shared with decoding."""
        return min(MAX_WAIT_S, (self.request_budget_s - CALLS * self.predict_timeout_s) / 2)

    @property
    def identities(self) -> tuple[str, ...]:
        """The ways in which whoever asks may say who they are."""
        return tuple(way.strip() for way in self.identity.split(","))

    @property
    def asks_who(self) -> bool:
        """Whether strangers are told from others."""
        return self.identities != (NONE,)

    @property
    def is_https(self) -> bool:
        """Whether browsers come over TLS."""
        return self.public_url.startswith("https://")

    def _problems(self) -> list[str]:
        shares = ("canary_share", "shadow_share")
        may_be_zero = (*shares, "max_waiting", "drain_s", "proxies", "golden_period_s", "traces_share")
        problems = [
            f"{PREFIX}{field.name.upper()} must be a number above zero"
            for field in dataclasses.fields(self)
            if not isinstance(field.default, str)
            and field.name not in may_be_zero
            and not 0 < getattr(self, field.name) < math.inf
        ]
        problems += [f"{PREFIX}{name.upper()} is not from 0 to 1" for name in shares if not 0 <= getattr(self, name) <= 1]
        problems += [
            f"{PREFIX}{name.upper()} must not be below zero"
            for name in ("max_waiting", "drain_s", "proxies")
            if not getattr(self, name) >= 0
        ]
        if self.redis_url and not re.fullmatch(r"rediss?://[^@?]+", self.redis_url):
            # A password there would be in every list of processes; and in this text, so the value is not repeated.
            problems.append(f"{PREFIX}REDIS_URL is not redis://host:port/database without name and password")
        if self.redis_password_file and not self.redis_url:
            problems.append(f"{PREFIX}REDIS_PASSWORD_FILE needs {PREFIX}REDIS_URL")
        if self.model_server_protocol not in (TENSORFLOW_SERVING, OPEN_INFERENCE):
            problems.append(f"{PREFIX}MODEL_SERVER_PROTOCOL is neither {TENSORFLOW_SERVING} nor {OPEN_INFERENCE}")
        if self.model_server_protocol == OPEN_INFERENCE:
            problems += [
                f"{PREFIX}{name.upper()} needs labels of versions, which {OPEN_INFERENCE} does not have"
                for name in ("model_label", *shares)
                if getattr(self, name) != getattr(Settings, name)
            ]
        # Whoever waits must outlive whom it waits for, or the reason of a failure is lost. The first picture that a version
        # answers costs two calls: the second one asks for its metadata (CALLS).
        if not self.worker_timeout_s > self.request_budget_s > CALLS * self.predict_timeout_s:
            problems.append(
                f"{PREFIX}WORKER_TIMEOUT_S > {PREFIX}REQUEST_BUDGET_S > {CALLS} x {PREFIX}PREDICT_TIMEOUT_S does not hold"
            )
        return problems + _identity_problems(self) + _case_problems(self) + _watch_problems(self)


_OF_KEYS: Final = ("api_keys_file",)
_OF_OIDC: Final = ("oidc_issuer", "oidc_client_id", "oidc_client_secret_file", "session_key_file")
_RATE: Final = re.compile(r"[1-9]\d* per (?:[1-9]\d* )?(?:second|minute|hour|day)s?")


def _identity_problems(settings: Settings) -> list[str]:
    """What is missing before strangers may reach the gateway, or would be there in vain."""
    ways = settings.identities
    problems = [
        f"{PREFIX}IDENTITY has {way!r}; it takes {NONE}, {KEYS}, {OIDC}" for way in ways if way not in (NONE, KEYS, OIDC)
    ]
    if NONE in ways and len(ways) > 1:
        problems.append(f"{PREFIX}IDENTITY: {NONE} stands alone")
    if ways == (NONE,) and not is_loopback(settings.bind.rpartition(":")[0]):
        problems.append(
            f"{PREFIX}BIND {settings.bind} can be reached by others, and {PREFIX}IDENTITY {NONE} lets everybody do everything: "
            f"set {PREFIX}IDENTITY to {KEYS}, {OIDC} or {KEYS},{OIDC} (docs/identity.md), or bind to 127.0.0.1"
        )
    for way, names in ((KEYS, _OF_KEYS), (OIDC, _OF_OIDC)):
        problems += [
            f"{PREFIX}{name.upper()} is needed for {PREFIX}IDENTITY {way}"
            if way in ways
            else f"{PREFIX}{name.upper()} does nothing without {way} in {PREFIX}IDENTITY"
            for name in names
            if (way in ways) != bool(getattr(settings, name))
        ]
    if OIDC not in ways and settings.oidc_roles_claim != Settings.oidc_roles_claim:
        problems.append(f"{PREFIX}OIDC_ROLES_CLAIM does nothing without {OIDC} in {PREFIX}IDENTITY")
    if OIDC in ways and not settings.public_url:
        problems.append(f"{PREFIX}PUBLIC_URL is needed for {PREFIX}IDENTITY {OIDC}")
    if settings.public_url and (not _is_safe_address(settings.public_url) or urlsplit(settings.public_url).path):
        problems.append(
            f"{PREFIX}PUBLIC_URL is not https://host (http on loopback only), without a path: {settings.public_url!r}"
        )
    if settings.public_url.endswith(":443" if settings.is_https else ":80"):
        problems.append(f"{PREFIX}PUBLIC_URL names a port that browsers leave out: {settings.public_url!r}")
    if settings.oidc_issuer and not _is_safe_address(settings.oidc_issuer):
        problems.append(f"{PREFIX}OIDC_ISSUER is not an https address (http on loopback only): {settings.oidc_issuer!r}")
    if settings.rate_limit and not _RATE.fullmatch(settings.rate_limit):
        problems.append(f"{PREFIX}RATE_LIMIT is not like '60 per minute': {settings.rate_limit!r}")
    return problems


def _is_safe_address(address: str) -> bool:
    parts = urlsplit(address)
    is_plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
    return (
        bool(parts.hostname) and (parts.scheme == "https" or is_plain) and not (parts.query or parts.fragment or parts.username)
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host; by its form, a name is not looked up."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _case_problems(settings: Settings) -> list[str]:
    """What is wrong with the address of the cases' database."""
    problems = []
    if settings.cases_database and not re.match(r"sqlite:///.|postgresql\+psycopg://.", settings.cases_database):
        problems.append(f"{PREFIX}CASES_DATABASE is neither sqlite:////PATH nor postgresql+psycopg://USER@HOST/NAME")
    # Not shown: it may be there.
    if re.search(r"://[^/@]*:[^/@]*@|[?&]password=", settings.cases_database):
        problems.append(f"{PREFIX}CASES_DATABASE must hold no password: {PREFIX}CASES_PASSWORD_FILE names the file that does")
    if settings.cases_password_file and not settings.cases_database.startswith("postgresql"):
        problems.append(f"{PREFIX}CASES_PASSWORD_FILE needs a {PREFIX}CASES_DATABASE that takes a password")
    return problems


def _watch_problems(settings: Settings) -> list[str]:
    """What is wrong with the golden picture's period and the traces."""
    problems = []
    if not 0 <= settings.golden_period_s <= DAY_S:
        problems.append(f"{PREFIX}GOLDEN_PERIOD_S is not from 0 to {DAY_S:.0f}")
    if not 0 <= settings.traces_share <= 1:
        problems.append(f"{PREFIX}TRACES_SHARE is not from 0 to 1")
    if not re.fullmatch(r"(https?://[^\s/?#@]+/?)?", settings.traces_endpoint):
        problems.append(f"{PREFIX}TRACES_ENDPOINT is not http://host:port: {settings.traces_endpoint!r}")
    if not re.fullmatch(r".+:\d{1,5}", settings.bind):
        problems.append(f"{PREFIX}BIND is not host:port: {settings.bind!r}")
    if settings.traces_share != Settings.traces_share and not settings.traces_endpoint:
        problems.append(f"{PREFIX}TRACES_SHARE does nothing without {PREFIX}TRACES_ENDPOINT")
    return problems
