"""Who asks, and what they may. Every route says what it takes; one that does not is closed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, get_args

from flask import Flask, current_app, g, request

from gateway.errors import NotPermitted

Permission = Literal["classify", "read_cases", "write_cases", "export_cases", "read_metrics"]
PERMISSIONS: Final[tuple[Permission, ...]] = get_args(Permission)

PUBLIC: Final = "public"
_GUARD: Final = "__guard__"

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True)
class Identity:
    """Who asks.

    Attributes:
        name: never a person's name: an account's or a key's identifier, as the audit record holds it.
        permissions: what they may.
    """

    name: str
    permissions: frozenset[Permission]


ANYBODY: Final = Identity("anybody", frozenset(PERMISSIONS))
"""Where nobody is asked who they are: a gateway on loopback."""


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
    """Whoever has sent the request that is being answered."""
    identity: Identity = g.identity
    return identity


def guard_of(app: Flask, endpoint: str) -> str | None:
    """What an endpoint takes: a permission, `public`, or None when it does not say."""
    return getattr(app.view_functions[endpoint], _GUARD, None)


def init_app(app: Flask, identify: Callable[[], Identity]) -> None:
    """Close every route to those who may not.

    Args:
        app: its routes.
        identify: says who has sent the current request.
    """
    public(app.view_functions["static"])

    @app.before_request
    def admit() -> None:
        g.identity = identify()
        if request.endpoint is None:
            return
        guard = guard_of(current_app, request.endpoint)
        if guard is None:
            raise RuntimeError(f"{request.endpoint} does not say whom it answers")
        if guard != PUBLIC and guard not in g.identity.permissions:
            raise NotPermitted(f"{g.identity.name} may not {guard}")
