"""Tokens a client may put on `$cbs`: shared access signatures and JSON Web Tokens.

A token is good for the resource it names and everything below, until it expires. Host names are not compared: a client
may know this broker by any name (a custom endpoint), and it listens on the loopback interface only.

Sources: learn.microsoft.com, "Authenticate access to Event Hubs with shared access signatures" and "AMQP 1.0 in Azure
Service Bus and Event Hubs protocol guide" (claims-based authorization).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote_plus, unquote_plus, urlsplit

import jwt

SAS_TYPE: Final = "servicebus.windows.net:sastoken"
JWT_TYPE: Final = "jwt"
_SAS_PREFIX: Final = "SharedAccessSignature "


class TokenRefused(Exception):
    """The token is not accepted; the text is for the client and never repeats the token."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Access to `path` (lower case, no leading slash; empty: everything) and below.

    It lasts until `expires_at`, in seconds since the Unix epoch.
    """

    path: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class JwtRules:
    """What a JSON Web Token must satisfy: RS256 with this public key (PEM), this issuer, one of these audiences."""

    issuer: str
    audience: tuple[str, ...]
    public_key: bytes


def resource_path(resource: str) -> str:
    """The path of a resource URI, comparable: lower case without slashes around it; empty for a whole namespace."""
    return urlsplit(resource if "://" in resource else f"sb://{resource}").path.strip("/").lower()


def covers(path: str, resource: str) -> bool:
    """Whether `path` is `resource` or above it, by whole segments."""
    return path in ("", resource) or resource.startswith(f"{path}/")


class TokenVerifier:
    """Checks tokens against shared keys and, where configured, the key of a token issuer."""

    def __init__(self, keys: Mapping[str, str], jwt_rules: JwtRules | None, clock: Callable[[], float]) -> None:
        self._keys = dict(keys)
        self._jwt_rules = jwt_rules
        self._clock = clock

    def verify(self, token_type: str, token: object, audience: str) -> Grant:
        """Check a token put for `audience` (the resource URI the client names).

        Raises:
            TokenRefused: malformed, wrong signature, expired, for another resource, or of an unknown type.
        """
        if isinstance(token, bytes):
            token = token.decode(errors="replace")
        if not isinstance(token, str):
            raise TokenRefused("MalformedToken: The token must be text.")
        try:
            path = resource_path(audience)
            if token_type == SAS_TYPE:
                scope, expires_at = self._verify_signature(token)
            elif token_type == JWT_TYPE:
                scope, expires_at = "", self._verify_jwt(token)
            else:
                raise TokenRefused("UnsupportedToken: The token type must be sastoken or jwt.")
        except (ValueError, OverflowError) as error:
            raise TokenRefused("MalformedToken: The token or the audience cannot be read.") from error
        if not covers(scope, path):
            raise TokenRefused("InvalidAudience: The token was issued for another resource.")
        return Grant(path, expires_at)

    def _verify_signature(self, token: str) -> tuple[str, float]:
        """The resource path and expiry of a shared access signature."""
        if not token.startswith(_SAS_PREFIX):
            raise TokenRefused("MalformedToken: Not a shared access signature.")
        parts = dict(part.split("=", 1) for part in token.removeprefix(_SAS_PREFIX).split("&"))
        missing = {"sr", "sig", "se", "skn"} - parts.keys()
        if missing:
            raise TokenRefused(f"MalformedToken: The token lacks {', '.join(sorted(missing))}.")
        # An unknown key name is checked against an empty key and reported like a wrong signature.
        name = unquote_plus(parts["skn"])
        key = self._keys.get(name, "").encode()
        resource = unquote_plus(parts["sr"])
        given = unquote_plus(parts["sig"]).encode()
        # Clients encode the resource differently; what they signed is normally what they sent.
        signed = {parts["sr"], quote_plus(resource)}
        matches = [hmac.compare_digest(_signature(key, text, parts["se"]), given) for text in signed]
        if name not in self._keys or not any(matches):
            raise TokenRefused("InvalidSignature: The token has an invalid signature.")
        expires_at = float(int(parts["se"]))
        if expires_at <= self._clock():
            raise TokenRefused(expired_text(expires_at))
        return resource_path(resource), expires_at

    def _verify_jwt(self, token: str) -> float:
        """The expiry of a JSON Web Token; it is good for the whole namespace, as roles are assigned elsewhere."""
        rules = self._jwt_rules
        if rules is None:
            raise TokenRefused("UnsupportedToken: No token issuer is configured.")
        try:
            claims = jwt.decode(
                token,
                rules.public_key,
                algorithms=["RS256"],
                issuer=rules.issuer,
                audience=rules.audience,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise TokenRefused("ExpiredToken: The token is expired.") from error
        except jwt.InvalidAudienceError as error:
            raise TokenRefused("InvalidAudience: The token was issued for another audience.") from error
        except jwt.InvalidIssuerError as error:
            raise TokenRefused("InvalidIssuer: The token was issued by someone else.") from error
        except jwt.InvalidTokenError as error:
            raise TokenRefused(f"InvalidToken: {type(error).__name__}.") from error
        expires_at = float(claims["exp"])
        if not math.isfinite(expires_at):
            raise TokenRefused("MalformedToken: The expiry is not a moment.")
        return expires_at


def _signature(key: bytes, resource: str, expiry: str) -> bytes:
    return base64.b64encode(hmac.digest(key, f"{resource}\n{expiry}".encode(), hashlib.sha256))


def expired_text(expires_at: float) -> str:
    """The service's words for an expired token."""
    try:
        moment = datetime.fromtimestamp(expires_at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        moment = "unknown"
    return f"ExpiredToken: The token is expired. Expiration time: '{moment}'"


class Grants:
    """The access one connection has; a later token for the same resource takes the place of the earlier one."""

    __slots__ = ("_expiries",)

    def __init__(self) -> None:
        self._expiries: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._expiries)

    def put(self, grant: Grant, limit: int) -> bool:
        """Remember a grant; False when the connection already has `limit` others."""
        if grant.path not in self._expiries and len(self._expiries) >= limit:
            return False
        self._expiries[grant.path] = grant.expires_at
        return True

    def expiry_for(self, resource: str) -> float | None:
        """When access to a resource path (lower case) ends or ended, s since the epoch; None: there never was any."""
        return max((expiry for path, expiry in self._expiries.items() if covers(path, resource)), default=None)
