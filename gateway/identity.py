"""Who asks, and what they may. Every route says what it takes; one that does not is closed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, get_args

from flask import Flask, current_app, g, request
from werkzeug.wrappers import Response

from gateway.errors import NotIdentified, NotPermitted

Permission = Literal["classify", "read_cases", "write_cases", "export_cases", "erase_cases", "read_metrics"]
PERMISSIONS: Final[tuple[Permission, ...]] = get_args(Permission)

Kind = Literal["anybody", "stranger", "person", "key"]

PUBLIC: Final = "public"
_GUARD: Final = "__guard__"

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True)
class Identity:
    """Who asks.

    Attributes:
        name: never a person's name: an account's or a key's identifier, as the log and the audit record hold it.
        permissions: what they may.
        role: that of a person at the identity provider; empty for everybody else, and where the provider gave none we know.
    """

    name: str
    permissions: frozenset[Permission]
    role: str = ""

    @property
    def kind(self) -> Kind:
        """What the name begins with, as in `person:4711` and `key:portal`."""
        kind: Kind = self.name.partition(":")[0]  # type: ignore[assignment]
        return kind


ANYBODY: Final = Identity("anybody", frozenset(PERMISSIONS))
"""Where nobody is asked who they are: a gateway on loopback."""

STRANGER: Final = Identity("stranger", frozenset())
"""Where everybody is asked: whoever has shown nothing, or nothing that holds."""

ROLES: Final[dict[str, frozenset[Permission]]] = {
    "admin": frozenset(PERMISSIONS),
    "clinician": frozenset({"classify", "read_cases", "write_cases"}),
    "viewer": frozenset({"read_cases"}),
}
"""What people may, the mightiest role first."""


def public(view: View) -> View:
    """A route that takes no identity."""
    setattr(view, _GUARD, PUBLIC)
    return view


def requires(permission: Permission) -> Callable[[View], View]:
    """A route for those who have the permission."""

    def guard(view: View) -> View:
        setattr(view, _GUARD, permission)
        return view

    return guard


def current() -> Identity:
    """Whoever has sent the request that is being answered; a stranger until that is known."""
    identity: Identity = g.get("identity", STRANGER)
    return identity


def guard_of(app: Flask, endpoint: str) -> str | None:
    """What an endpoint takes: a permission, `public`, or None when it does not say."""
    return getattr(app.view_functions[endpoint], _GUARD, None)


def init_app(app: Flask, identify: Callable[[], Identity]) -> None:
    """Find out who sends each request. Nobody is sent away yet: a limit of rates comes between this and `close`.

    Args:
        app: its routes.
        identify: says who has sent the current request.
    """
    public(app.view_functions["static"])

    @app.before_request
    def know() -> None:
        # A file that is the same for everybody must not depend on a cookie.
        g.identity = STRANGER if request.endpoint == "static" else identify()


def close(app: Flask, invite: Callable[[], Response | None]) -> None:
    """Close every route to those who may not.

    Args:
        app: its routes.
        invite: what a stranger gets from a guarded route instead of the problem, if anything: the way to the sign-in page.
    """

    @app.before_request
    def admit() -> Response | None:
        if request.endpoint is None:
            return None
        guard = guard_of(current_app, request.endpoint)
        if guard is None:
            raise RuntimeError(f"{request.endpoint} does not say whom it answers")
        if guard == PUBLIC or guard in current().permissions:
            return None
        if current() is not STRANGER:
            raise NotPermitted(f"{current().name} may not {guard}")
        if invitation := invite():
            return invitation
        raise NotIdentified(f"a stranger may not {guard}")
