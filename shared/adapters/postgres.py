"""How an app's Postgres setting becomes a connection, with a password or with a token as the password.

The setting has the two forms of every connection (see `shared.adapters.connections`): `<NAME>` is a connection string
as libpq reads it, `<NAME>__<part>` names server and identity and holds no secret:

| part | meaning |
| --- | --- |
| `host`, `port` | the server; port 5432 unless given |
| `database`, `user` | the user is the database role of the identity |
| `sslMode` | `verify-full` (default) or `require` (checks the authority, not the name) |
| `sslRootCert` | file of trusted roots; else `SSL_CERT_FILE`, else those of certifi |
| `credential`, `clientId` | as for every connection |

A token lives for a limited time, but Postgres checks it only when a connection starts. So it is fetched for each new
connection (from the credential's cache most of the time) and an open connection outlives it.

Source: Azure Database for PostgreSQL, "Use Microsoft Entra ID for authentication".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from shared.adapters.connections import (
    CA_FILE_SETTING,
    ConnectionSettingError,
    Identity,
    credential,
    parse_identity,
    read_parts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg import Connection

TOKEN_SCOPE: Final = "https://ossrdbms-aad.database.windows.net/.default"  # noqa: S105 - a name, not a secret

_PARTS = frozenset(
    {"host", "port", "database", "user", "sslMode", "sslRootCert", "credential", "clientId"},
)
_SSL_MODES = frozenset({"require", "verify-full"})
# A dead peer is noticed after 30 + 3 * 10 seconds, well before the 230 s after which Azure's load balancer gives up.
_DEFAULTS: Final[dict[str, str | int]] = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}


@dataclass(frozen=True, slots=True)
class PostgresConnection:
    """Where the database is and who calls. Either `dsn` or `identity` is set, never both.

    Attributes:
        name: Name of the setting.
        dsn: libpq connection string or URI; may hold a password: never logged, not in the repr.
        parameters: libpq parameters of the identity form, without the password.
        identity: Who calls.
    """

    name: str
    dsn: str | None = field(default=None, repr=False)
    parameters: tuple[tuple[str, str], ...] = ()
    identity: Identity | None = None


def parse_postgres(name: str, settings: Mapping[str, str]) -> PostgresConnection:
    """Read the Postgres connection `name` from an app's settings.

    Raises:
        ConnectionSettingError: Neither or both forms are given, a part is unknown, missing or malformed.
    """
    dsn, parts = read_parts(name, settings, _PARTS)
    if dsn is not None:
        return PostgresConnection(name=name, dsn=dsn)
    missing = [f"{name}__{part}" for part in ("host", "database", "user") if part not in parts]
    if missing:
        raise ConnectionSettingError(f"{name}: missing {', '.join(missing)}")
    port, ssl_mode = parts.get("port", "5432"), parts.get("sslMode", "verify-full")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConnectionSettingError(f"{name}__port: a port number from 1 to 65535")
    if ssl_mode not in _SSL_MODES:
        raise ConnectionSettingError(f"{name}__sslMode: {' or '.join(sorted(_SSL_MODES))}; a token needs TLS")
    parameters = {
        "host": parts["host"],
        "port": port,
        "dbname": parts["database"],
        "user": parts["user"],
        "sslmode": ssl_mode,
        "sslrootcert": parts.get("sslRootCert") or settings.get(CA_FILE_SETTING) or _certifi_roots(),
    }
    return PostgresConnection(name=name, parameters=tuple(parameters.items()), identity=parse_identity(name, parts))


def conninfo(connection: PostgresConnection, *, application_name: str, **overrides: str | int) -> str:
    """Build libpq's connection string, without a token. What the DSN itself says wins over the defaults.

    Args:
        connection: What `parse_postgres` returned.
        application_name: Shown in `pg_stat_activity`; Postgres cuts it at 63 bytes.
        overrides: Further libpq parameters; times in seconds.

    Raises:
        ConnectionSettingError: The DSN cannot be parsed.
    """
    from psycopg import ProgrammingError  # noqa: PLC0415 - paid by those who connect
    from psycopg.conninfo import conninfo_to_dict, make_conninfo  # noqa: PLC0415

    try:
        own = conninfo_to_dict(connection.dsn) if connection.dsn is not None else dict(connection.parameters)
    except ProgrammingError:
        # Without the cause: libpq quotes the text that it could not parse, password and all.
        raise ConnectionSettingError(f"{connection.name}: not a Postgres connection string") from None
    return make_conninfo("", **{"application_name": application_name, **_DEFAULTS, **own, **overrides})


def connect(connection: PostgresConnection, *, application_name: str, **options: Any) -> Connection[Any]:
    """Open a new connection, with a token fetched now when the setting names an identity. The caller closes it.

    Args:
        connection: What `parse_postgres` returned.
        application_name: Shown in `pg_stat_activity`.
        options: Passed on to `psycopg.connect`, such as `autocommit`.

    Raises:
        ConnectionSettingError: The DSN cannot be parsed.
        azure.core.exceptions.AzureError: No token could be had.
        psycopg.OperationalError: The server cannot be reached or refuses the login.
    """
    from psycopg import connect as open_connection  # noqa: PLC0415 - paid by those who connect

    text = conninfo(connection, application_name=application_name)
    return open_connection(text, password=password(connection), **options)


def password(connection: PostgresConnection) -> str | None:
    """Return the password of one new connection: a token that is valid now; None leaves it to the DSN.

    Separate from `connect` so that a pool can ask for it each time it opens a connection.

    Raises:
        azure.core.exceptions.AzureError: No token could be had.
    """
    if connection.identity is None:
        return None
    return credential(connection.identity).get_token(TOKEN_SCOPE).token


def _certifi_roots() -> str:
    """Return certifi's file of roots: libpq's own default is a file in the home directory, which no app has."""
    import certifi  # noqa: PLC0415 - comes with azure-core

    return certifi.where()
