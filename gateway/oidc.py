"""The hospital's identity provider, asked by Authlib: OpenID Connect, authorization code, PKCE. Loaded where people sign in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.flask_client import FlaskIntegration, FlaskOAuth2App
from joserfc.errors import JoseError

from gateway.errors import ProviderUnavailable, SignInFailed
from gateway.sessions import Person
from gateway.settings import Settings, SettingsError

TIMEOUT_S: Final = 3.0
"""Of each call to the provider; pages share few threads with the probes."""

LEEWAY_S: Final = 30
"""By how much the provider's clock may differ from ours."""

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""Signatures of a private key. `none`, and those of a shared secret, are refused whatever the provider offers."""


class _Client(FlaskOAuth2App):  # type: ignore[misc]  # authlib has no types
    """Takes the provider's own description only if it is that of the provider we were told."""

    issuer = ""

    def load_server_metadata(self) -> dict[str, Any]:
        metadata: dict[str, Any] = super().load_server_metadata()
        if (name := metadata.get("issuer")) != self.issuer:
            # Asked anew next time: it may have been mended.
            self.server_metadata.clear()
            raise ProviderUnavailable(f"the provider calls itself {name!r}, not {self.issuer!r}")
        offered = metadata.get("id_token_signing_alg_values_supported") or ()
        metadata["id_token_signing_alg_values_supported"] = [name for name in offered if name in ALGORITHMS] or ["RS256"]
        return metadata


class Provider:
    """The provider. It is first asked when somebody signs in: the gateway starts, and classifies, without it."""

    def __init__(self, settings: Settings) -> None:
        """Read the client's secret.

        Raises:
            SettingsError: its file cannot be read, or is empty.
        """
        self._roles_claim = settings.oidc_roles_claim
        self._client = _Client(
            FlaskIntegration("provider"),
            name="provider",
            client_id=settings.oidc_client_id,
            client_secret=_read_secret(Path(settings.oidc_client_secret_file)),
            server_metadata_url=f"{settings.oidc_issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={"scope": "openid", "code_challenge_method": "S256", "default_timeout": TIMEOUT_S},
        )
        self._client.issuer = settings.oidc_issuer
        # Authlib alone would take a token for others in which we are named as the authorized party.
        self._claims = {
            "iss": {"essential": True, "value": settings.oidc_issuer},
            "aud": {"essential": True, "value": settings.oidc_client_id},
        }

    def begin(self, redirect_uri: str) -> str:
        """Where the browser goes to sign in. State, nonce and code verifier are noted in the session.

        Raises:
            ProviderUnavailable: the provider does not say where that is.
        """
        with _translated():
            request = self._client.create_authorization_url(redirect_uri)
            self._client.save_authorize_data(redirect_uri=redirect_uri, **request)
            return str(request["url"])

    def finish(self) -> Person:
        """Who has signed in, from the request that the browser came back with.

        Raises:
            SignInFailed: that request does not belong to this session, the provider has refused, or its token does not hold.
            ProviderUnavailable: the provider gave no token.
        """
        with _translated():
            token = self._client.authorize_access_token(claims_options=self._claims, leeway=LEEWAY_S)
        claims = token.get("userinfo")
        if not claims or not isinstance(claims.get("sub"), str) or not claims["sub"]:
            raise SignInFailed("the provider sent no ID token with a subject")
        roles = claims.get(self._roles_claim, ())
        roles = (roles,) if isinstance(roles, str) else roles
        return Person(
            claims["sub"], tuple(role for role in roles if isinstance(role, str)) if isinstance(roles, list | tuple) else ()
        )

    def sign_out(self, return_uri: str) -> str | None:
        """Where the browser goes to end the session at the provider too; None where the provider has no such place."""
        try:
            with _translated():
                metadata = self._client.load_server_metadata()
                if not metadata.get("end_session_endpoint"):
                    return None
                url: str = self._client.create_logout_url(return_uri, client_id=self._client.client_id)["url"]
                return url
        except ProviderUnavailable:
            return None


@contextmanager
def _translated() -> Iterator[None]:
    """The library's exceptions as ours; their texts may quote the request, so only their kind is told."""
    try:
        yield
    except requests.RequestException as error:
        raise ProviderUnavailable(f"the provider does not answer: {type(error).__name__}") from error
    except AuthlibBaseError as error:
        raise SignInFailed(f"{type(error).__name__}: {str(error.error)[:40]}") from error
    except JoseError as error:
        raise SignInFailed(
            f"the ID token does not hold: {type(error).__name__} {getattr(error, 'claim', '')}".rstrip()
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise SignInFailed(f"the provider's answer cannot be read: {type(error).__name__}") from error


def _read_secret(path: Path) -> str:
    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"GATEWAY_OIDC_CLIENT_SECRET_FILE: {path}: {error}") from error
    if not secret:
        raise SettingsError(f"GATEWAY_OIDC_CLIENT_SECRET_FILE: {path} is empty")
    return secret
