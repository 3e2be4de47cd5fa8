"""How often somebody may ask: classifications of each identity, sign-ins and wrong keys of each address."""

import ipaddress
import logging
import time
from typing import TYPE_CHECKING, Final

import structlog
from flask import Flask, Response, current_app, g, request
from flask_limiter import ApplicationLimit, HeaderNames, Limiter

from gateway import authentication, charges, identity, metrics
from gateway.identity import STRANGER
from gateway.settings import Settings

if TYPE_CHECKING:
    import redis

SIGN_INS: Final = "60 per minute"
"""Of one address. Each takes two requests, and a whole ward may share an address: passwords are guessed at the provider."""

WRONG_KEYS: Final = "30 per minute"
"""Of one address. A key cannot be guessed; this is for the log and for programs that go on with a key that has expired."""

_IPV6_NETWORK_BITS: Final = 64
_TOO_MANY: Final = 429
_SCOPE: Final = "global"
"""That of the library's application limits: what is counted in it counts together."""

_PREFIX: Final = "dermserve:limits"
_NAMES: Final = {
    HeaderNames.LIMIT: "RateLimit-Limit",
    HeaderNames.REMAINING: "RateLimit-Remaining",
    HeaderNames.RESET: "RateLimit-Reset",
    HeaderNames.RETRY_AFTER: "RateLimit-Retry-After",
}
_log = structlog.get_logger()


class _Fallback(logging.Handler):
    """Flask-Limiter tells only its logger that it has lost the store and counts in memory, or that it has found it again."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            metrics.RATE_LIMIT_FALLBACKS.inc()
            _log.warning("rate limits: the store is lost, each process counts for itself", reason=record.getMessage())
        elif "recovered" in record.getMessage():
            _log.info("rate limits: the store is back")


class RateLimits:
    """The limits of one process; shared with the others when there is a store."""

    def __init__(self, settings: Settings, store: "redis.Redis | None") -> None:
        """Prepare them.

        Args:
            settings: how often may be classified.
            store: where all processes count together; without one each counts for itself.
        """
        limits = [
            ApplicationLimit(SIGN_INS, key_function=_address, exempt_when=_is_no_sign_in),
            ApplicationLimit(
                WRONG_KEYS, key_function=_address_of_key, exempt_when=_is_no_wrong_key, deduct_when=lambda _: True
            ),
        ]
        if settings.rate_limit:
            limits.append(ApplicationLimit(settings.rate_limit, key_function=_asker, exempt_when=_is_no_classification))
        self._limiter = Limiter(
            _address,
            application_limits=limits,  # type: ignore[arg-type]
            strategy="moving-window",
            storage_uri="memory://" if store is None else "redis://",
            storage_options={} if store is None else {"connection_pool": store.connection_pool},  # type: ignore[dict-item]
            in_memory_fallback_enabled=store is not None,
            # Counting must not cost an answer.
            swallow_errors=True,
            headers_enabled=True,
            header_name_mapping=_NAMES,
            key_prefix=_PREFIX,
        )
        self._further = None
        if settings.rate_limit:
            self._further = self._limiter.shared_limit(settings.rate_limit, _SCOPE, key_func=_asker, cost=_further_pictures)

    def init_app(self, app: Flask) -> None:
        """Count each request. After `identity.init_app`, before `identity.close`; nothing of an upload is read."""
        logger = logging.getLogger("flask-limiter")
        logger.handlers = [_Fallback()]
        logger.setLevel(logging.INFO)
        logger.propagate = False
        # What is registered first runs last: after the library has added its headers.
        app.after_request(_tell_in_seconds)
        self._limiter.init_app(app)
        if self._further:
            charges.init_app(app, self._count)

    def _count(self, pictures: int) -> None:
        """As much again under the limit that the request was counted in; all of it or nothing."""
        g.further_pictures = pictures
        if self._further:
            with self._further:
                pass


def _tell_in_seconds(response: Response) -> Response:
    """The library tells the time of day, and when to try again even where all is well."""
    response.headers.pop(_NAMES[HeaderNames.RETRY_AFTER], None)
    reset = response.headers.get(_NAMES[HeaderNames.RESET])
    if reset is None:
        return response
    seconds = max(1, int(int(reset) - time.time()))
    response.headers[_NAMES[HeaderNames.RESET]] = str(seconds)
    if response.status_code == _TOO_MANY:
        response.headers["Retry-After"] = str(seconds)
    return response


def _asker() -> str:
    who = identity.current()
    return f"classify:{_address() if who is identity.ANYBODY else who.name}"


def _further_pictures() -> int:
    return int(g.further_pictures)


def _address() -> str:
    """A household's or a ward's: whoever has one address of IPv6 has a whole network of 64 bits to come from."""
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return f"address:{request.remote_addr}"
    if address.version == 4:  # noqa: PLR2004
        return f"address:{address}"
    return f"address:{ipaddress.ip_network((address, _IPV6_NETWORK_BITS), strict=False)}"


def _address_of_key() -> str:
    return f"key-of-{_address()}"


def _is_no_classification() -> bool:
    # By the guard: a route that will classify too is limited with it. To keep a case is to classify as well.
    guard = identity.guard_of(current_app, request.endpoint) if request.endpoint else None
    return guard not in ("classify", "write_cases") or request.method != "POST" or identity.current() is STRANGER


def _is_no_sign_in() -> bool:
    return request.endpoint not in ("sign_in.begin", "sign_in.finish")


def _is_no_wrong_key() -> bool:
    return not authentication.has_failed()
