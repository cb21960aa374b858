"""Makes the current token of an identity the password of its Postgres role.

In Azure the database server itself checks a token that is sent as the password. A Postgres off the shelf cannot, so
the check is turned round: before a token for Postgres is handed out, it becomes the role's password, with the token's
end as the password's end. To a client the two are alike: the token of now works, another, an expired or a replaced one
does not.

A role has one password, which everyone who connects as it shares. That works because everyone is given the same token
until it is replaced (`twin.identity.tokens`). What is left is the moment of replacement: who was given the old token
just before needs time to log in with it. So the first request of a period waits until the period is `SETTLE_S` old.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from twin.identity.config import Identity, Postgres
    from twin.identity.tokens import Issuer, Token

RESOURCE: Final = "https://ossrdbms-aad.database.windows.net"
# Time to log in with a token that was handed out just before its replacement, seconds; a login takes some 10 ms.
SETTLE_S: Final = 1.0
_CONNECT_TIMEOUT_S: Final = 5
_STATEMENT_TIMEOUT_MS: Final = 5_000


class RolePasswords:
    """Hands out tokens for Postgres, one at a time, each already in force as the password."""

    def __init__(self, postgres: Postgres, issuer: Issuer) -> None:
        self._postgres = postgres
        self._issuer = issuer
        self._lock = asyncio.Lock()

    def is_for(self, identity: Identity, resource: str) -> bool:
        """Say whether a token for `resource` is a password: a role is mapped to the identity."""
        return resource.rstrip("/") == RESOURCE and identity.client_id in self._postgres.roles

    async def token(self, identity: Identity) -> Token:
        """Return the current token once it is the password of the identity's role. A missing role is created.

        It is the same whether a caller writes the resource with a slash at its end or without: there is one password.

        It is set each time, though it is mostly the same: the database may have been made anew meanwhile.

        Raises:
            psycopg.Error: The database cannot be reached or refuses.
        """
        # The lock spans choosing and setting: else a slow request of the last period could put its token back.
        async with self._lock:
            token = self._issuer.token(identity, RESOURCE, time.time())
            await asyncio.sleep(token.issued_at + self._issuer.settle_s(SETTLE_S) - time.time())
            await self._set_password(self._postgres.roles[identity.client_id], token)
            return token

    async def ping(self) -> None:
        """Ask the database for nothing.

        Raises:
            psycopg.Error: It does not answer.
        """
        async with await self._connect() as connection:
            await connection.execute("SELECT 1")

    async def _set_password(self, role: str, token: Token) -> None:
        async with await self._connect() as connection:
            # Only a SCRAM verifier leaves this process: the server's log may show statements, and tokens are secrets.
            verifier = connection.pgconn.encrypt_password(token.text.encode(), role.encode(), b"scram-sha-256")
            known = await connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])
            if await known.fetchone() is None:
                await connection.execute(self._create(role))
            await connection.execute(
                sql.SQL("ALTER ROLE {} LOGIN PASSWORD {} VALID UNTIL {}").format(
                    sql.Identifier(role),
                    sql.Literal(verifier.decode()),
                    sql.Literal(time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(token.expires_on))),
                )
            )

    def _create(self, role: str) -> sql.Composed:
        """Return the statement that makes a role, as `pgaadauth_create_principal` makes it in Azure."""
        create = sql.SQL("CREATE ROLE {}").format(sql.Identifier(role))
        if self._postgres.member_of is None:
            return create
        return create + sql.SQL(" IN ROLE {}").format(sql.Identifier(self._postgres.member_of))

    async def _connect(self) -> psycopg.AsyncConnection[tuple[object, ...]]:
        return await psycopg.AsyncConnection.connect(
            self._postgres.admin_dsn,
            autocommit=True,
            connect_timeout=_CONNECT_TIMEOUT_S,
            application_name="tollgate-identity",
            # A hung statement would hold up everyone who waits for a token.
            options=f"-c statement_timeout={_STATEMENT_TIMEOUT_MS}",
        )
