"""Access tokens as Entra ID issues them to managed identities (version 1.0), and when a new one is due.

A managed-identity endpoint gives everyone the same token until it is near its end. Here that needs no memory: time is
cut into periods, and the token of a period is a pure function of key, identity, resource and period (RS256 signatures
are deterministic). So a restarted endpoint hands out the very token that running clients hold, which matters where the
token is a password.

A token of `lifetime_s` is replaced when `margin_s` of it is left: 300 seconds, after which azure-identity stops using
a cached token and asks again (MSAL `managed_identity.py`; `DEFAULT_REFRESH_OFFSET`). Both sides change at the same
moment, so no client goes on using a token that another has already replaced.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import jwt

from twin.identity import signing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from twin.identity.config import Identity

REFRESH_MARGIN_S: Final = 300


@dataclass(frozen=True, slots=True)
class Token:
    """An access token.

    Attributes:
        text: The signed JWT: a secret, not in the repr.
        issued_at: Start of its period, seconds since the epoch.
        expires_on: Seconds since the epoch.
    """

    text: str = field(repr=False)
    issued_at: int
    expires_on: int


def margin_s(lifetime_s: int) -> int:
    """Return how long before its end a token is replaced, in seconds: 300, or half of a short life."""
    return min(REFRESH_MARGIN_S, lifetime_s // 2)


class Issuer:
    """Signs the tokens of one tenant."""

    def __init__(self, key: RSAPrivateKey, issuer: str, tenant_id: str, lifetime_s: int) -> None:
        self._key = key
        self._key_id = hashlib.sha256(signing.public_pem(key)).hexdigest()[:40]
        self._issuer = issuer
        self._tenant_id = tenant_id
        self._lifetime_s = lifetime_s
        self._period_s = lifetime_s - margin_s(lifetime_s)
        self._current: dict[tuple[str, str], Token] = {}

    def settle_s(self, wanted_s: float) -> float:
        """Return how old a period must be before its token replaces another: `wanted_s`, or a tenth of a short one."""
        return min(wanted_s, self._period_s / 10)

    def token(self, identity: Identity, resource: str, now: float) -> Token:
        """Return the token of an identity for a resource that is current at `now` (seconds since the epoch)."""
        issued_at = int(now // self._period_s) * self._period_s
        known = self._current.get((identity.client_id, resource))
        if known is None or known.issued_at != issued_at:
            # Signing takes about a millisecond and would give the same bytes again. Older periods are forgotten.
            self._current = {key: token for key, token in self._current.items() if token.issued_at == issued_at}
            known = self._sign(identity, resource, issued_at)
            self._current[identity.client_id, resource] = known
        return known

    def _sign(self, identity: Identity, resource: str, issued_at: int) -> Token:
        expires_on = issued_at + self._lifetime_s
        seed = f"{identity.client_id}\n{resource}\n{issued_at}".encode()
        claims = {
            "aud": resource,
            "iss": self._issuer,
            "iat": issued_at,
            "nbf": issued_at,
            "exp": expires_on,
            "appid": identity.client_id,
            "appidacr": "2",
            "idp": self._issuer,
            "idtyp": "app",
            "oid": identity.object_id,
            "sub": identity.object_id,
            "tid": self._tenant_id,
            "uti": base64.urlsafe_b64encode(hashlib.sha256(seed).digest()[:16]).rstrip(b"=").decode(),
            "ver": "1.0",
        }
        return Token(jwt.encode(claims, self._key, "RS256", {"kid": self._key_id}), issued_at, expires_on)
