"""The managed-identity endpoint of App Service and Functions, on loopback.

`GET /msi/token?resource=...&api-version=2019-08-01[&client_id=...|&object_id=...]` with the header
`X-IDENTITY-HEADER`, as azure-identity asks when `IDENTITY_ENDPOINT` and `IDENTITY_HEADER` are set. `GET /health` is
open and says nothing secret.

Without a client id a caller means the system-assigned identity; here that is the only identity there is, and with
several it is nobody, as in the cloud. Refusals carry Azure's fields (`statusCode`, `message`, `correlationId`).

Sources: App Service, "How to use managed identities", REST endpoint reference; the texts of refusals from reports in
azure-sdk-for-python#35015; that an unknown resource is a 500 from a note in MSAL's `managed_identity.py`.
"""

from __future__ import annotations

import hmac
import logging
import time
import uuid
from typing import TYPE_CHECKING, Final

import psycopg
from aiohttp import web

if TYPE_CHECKING:
    from twin.identity.config import Config, Identity
    from twin.identity.role_passwords import RolePasswords
    from twin.identity.tokens import Issuer, Token

TOKEN_PATH: Final = "/msi/token"  # noqa: S105 - a path
HEALTH_PATH: Final = "/health"
API_VERSION: Final = "2019-08-01"

_LOG = logging.getLogger(__name__)


class _RefusalError(Exception):
    """A request that gets no token."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Endpoint:
    """Answers requests for tokens."""

    def __init__(self, config: Config, issuer: Issuer, passwords: RolePasswords | None) -> None:
        self._config = config
        self._issuer = issuer
        self._passwords = passwords

    def app(self) -> web.Application:
        """Return the web application."""
        app = web.Application()
        app.add_routes([web.get(TOKEN_PATH, self._token), web.get(HEALTH_PATH, self._health)])
        return app

    async def _token(self, request: web.Request) -> web.Response:
        try:
            identity, resource = self._admit(request)
            token = await self._issue(identity, resource)
        except _RefusalError as refusal:
            # The answer's id is in the log, so that a user can find which request was meant.
            correlation_id = str(uuid.uuid4())
            _LOG.warning("refused %s: %s (%s)", refusal.status, refusal, correlation_id)
            body = {"statusCode": refusal.status, "message": str(refusal), "correlationId": correlation_id}
            return web.json_response(body, status=refusal.status)
        _LOG.info("token for %s, resource %r, until %s", identity.name, resource, token.expires_on)
        return web.json_response(
            {
                "access_token": token.text,
                # Text, as in the cloud, where it is a number in a string.
                "expires_on": str(token.expires_on),
                "resource": resource,
                "token_type": "Bearer",
                "client_id": identity.client_id,
            },
            headers={"Cache-Control": "no-store"},
        )

    async def _health(self, _request: web.Request) -> web.Response:
        if self._passwords is not None:
            try:
                await self._passwords.ping()
            except psycopg.Error:
                return web.json_response({"status": "unhealthy", "problem": "postgres does not answer"}, status=503)
        return web.json_response({"status": "healthy", "identities": [one.name for one in self._config.identities]})

    def _admit(self, request: web.Request) -> tuple[Identity, str]:
        """Return who asks and for what.

        Raises:
            _RefusalError: The caller does not know the secret, or asks for what there is not.
        """
        secret = request.headers.get("X-IDENTITY-HEADER", "")
        # Bytes that are no UTF-8 arrive as surrogates.
        if not hmac.compare_digest(secret.encode("utf-8", "surrogateescape"), self._config.header.encode()):
            raise _RefusalError(401, "X-IDENTITY-HEADER is missing or wrong.")
        if request.query.get("api-version") != API_VERSION:
            raise _RefusalError(400, f"api-version is missing or not {API_VERSION}.")
        resource = request.query.get("resource", "")
        if not resource:
            raise _RefusalError(400, "resource is missing.")
        identity = self._find(request)
        if identity.resources is not None and resource.rstrip("/") not in identity.resources:
            raise _RefusalError(500, f"The resource is not one that identity {identity.name} may have tokens for.")
        return identity, resource

    def _find(self, request: web.Request) -> Identity:
        """Return the identity that is asked for."""
        query = {
            key: request.query[key].lower()
            for key in ("client_id", "object_id", "principal_id", "mi_res_id")
            if key in request.query
        }
        found = [
            identity
            for identity in self._config.identities
            if all(value == _attribute(identity, key) for key, value in query.items())
        ]
        if len(found) == 1:
            return found[0]
        if not query:
            raise _RefusalError(400, "No system-assigned managed identity: name one by client_id.")
        raise _RefusalError(
            400, "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId."
        )

    async def _issue(self, identity: Identity, resource: str) -> Token:
        if self._passwords is None or not self._passwords.is_for(identity, resource):
            return self._issuer.token(identity, resource, time.time())
        try:
            return await self._passwords.token(identity)
        except psycopg.Error as error:
            # Only its kind: the text of a failed statement may quote the statement.
            _LOG.error("no password for %s: %s, SQLSTATE %s", identity.name, type(error).__name__, error.sqlstate)
            raise _RefusalError(
                500, "The database whose password is the token cannot be reached or refuses."
            ) from error


def _attribute(identity: Identity, key: str) -> str | None:
    if key == "client_id":
        return identity.client_id
    # Resource ids do not exist here.
    return identity.object_id if key in ("object_id", "principal_id") else None
