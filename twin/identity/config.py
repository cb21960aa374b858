"""Configuration of the identity endpoint: one JSON file, every problem of which is named at once."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from collections.abc import Callable

# Addresses, not names: "localhost" may be two of them, and which one listens must be certain.
LOOPBACK: Final = ("127.0.0.1", "::1")
# Entra's own managed-identity tokens live for 24 hours; below 4 seconds no client could use one.
LIFETIME_RANGE_S: Final = range(4, 86_401)
_ROLE = re.compile(r"[a-z_][a-z0-9_-]{0,62}")


class ConfigError(Exception):
    """The configuration cannot be used. `problems` names every fault; no text holds a secret."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Identity:
    """A managed identity.

    Attributes:
        name: For logs.
        client_id: Application id, what callers ask for; lower case.
        object_id: Principal id, who the token is about; lower case.
        resources: What tokens may be had for; None is everything.
    """

    name: str
    client_id: str
    object_id: str
    resources: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class TlsFront:
    """A TLS listener in front of a Postgres server that was built without TLS.

    Attributes:
        port: Loopback port; 0 takes a free one.
        certificate: Server certificate, PEM.
        key: Its key, PEM.
        server_host: Loopback address of the Postgres server behind it.
        server_port: Its port.
    """

    port: int
    certificate: Path
    key: Path
    server_host: str
    server_port: int


@dataclass(frozen=True, slots=True)
class Postgres:
    """Whose tokens are passwords of which database roles.

    Attributes:
        admin_dsn: Login that may alter the roles; may hold a password, so not in the repr.
        roles: Client id -> role.
        member_of: Role whose rights new roles inherit; None for none.
        tls: TLS listener in front of the server, if it needs one.
    """

    admin_dsn: str = field(repr=False)
    roles: dict[str, str]
    member_of: str | None = None
    tls: TlsFront | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """What the endpoint serves.

    Attributes:
        host: Loopback address to listen on.
        port: Port; 0 takes a free one, which the start line names.
        header: The secret that callers send in `X-IDENTITY-HEADER`.
        issuer: `iss` of the tokens. Azurite accepts `https://sts.windows.net/...`.
        tenant_id: `tid` of the tokens.
        key_file: RSA key that signs, PEM.
        public_key_file: Its public half, PEM, for those who check tokens.
        token_lifetime_s: From the start of a token's period to its end, seconds, 4 to 86,400.
        identities: Who may have tokens.
        postgres: Database roles whose password is a token; None for none.
    """

    host: str
    port: int
    header: str = field(repr=False)
    issuer: str
    tenant_id: str
    key_file: Path
    public_key_file: Path
    token_lifetime_s: int
    identities: tuple[Identity, ...]
    postgres: Postgres | None


class _Rule(NamedTuple):
    """What a field must be, in words, and the check of it."""

    text: str
    holds: Callable[[Any], bool]


def _is_uuid(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value.lower()
    except ValueError:
        return False


def _is_int(value: Any, allowed: range) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in allowed


def _is_https(value: Any) -> bool:
    try:
        return isinstance(value, str) and urlsplit(value).scheme == "https" and bool(urlsplit(value).netloc)
    except ValueError:
        return False


def _is_resources(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(item, str) and item for item in value))


def _is_role(value: Any) -> bool:
    return isinstance(value, str) and bool(_ROLE.fullmatch(value))


def _is_roles(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_uuid(client_id) and _is_role(role) for client_id, role in value.items())


def _is_dsn(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(conninfo_to_dict(value))
    except psycopg.ProgrammingError:
        return False


_TEXT: Final = _Rule("a text that is not empty", lambda value: isinstance(value, str) and bool(value))
_FILE: Final = _Rule("a file that exists", lambda value: isinstance(value, str) and Path(value).is_file())
_UUID: Final = _Rule("a UUID", _is_uuid)
_PORT: Final = _Rule("a port from 0 to 65535", lambda value: _is_int(value, range(65536)))
_HOST: Final = _Rule(f"a loopback address ({', '.join(LOOPBACK)})", lambda value: value in LOOPBACK)
_OBJECT_OR_NULL: Final = _Rule("an object or null", lambda value: value is None or isinstance(value, dict))

_CONFIG_RULES: Final = {
    "host": _HOST,
    "port": _PORT,
    "header": _Rule("a secret of at least 16 characters", lambda value: isinstance(value, str) and len(value) >= 16),
    "issuer": _Rule("an https:// address", _is_https),
    "tenant_id": _UUID,
    "key_file": _FILE,
    "public_key_file": _FILE,
    "token_lifetime_s": _Rule("whole seconds, 4 to 86400", lambda value: _is_int(value, LIFETIME_RANGE_S)),
    "identities": _Rule("a list with at least one identity", lambda value: isinstance(value, list) and bool(value)),
    "postgres": _OBJECT_OR_NULL,
}
_IDENTITY_RULES: Final = {
    "name": _TEXT,
    "client_id": _UUID,
    "object_id": _UUID,
    "resources": _Rule("a list of texts, or null for every resource", _is_resources),
}
_POSTGRES_RULES: Final = {
    "admin_dsn": _Rule("a Postgres connection string", _is_dsn),
    "roles": _Rule("an object of client id to role name (lower case)", _is_roles),
    "member_of": _Rule("a role name (lower case) or null", lambda value: value is None or _is_role(value)),
    "tls": _OBJECT_OR_NULL,
}
_TLS_RULES: Final = {
    "port": _PORT,
    "certificate": _FILE,
    "key": _FILE,
    "server_host": _HOST,
    "server_port": _Rule("a port from 1 to 65535", lambda value: _is_int(value, range(1, 65536))),
}
_DEFAULTS: Final[dict[str, Any]] = {
    "host": "127.0.0.1",
    "resources": None,
    "postgres": None,
    "tls": None,
    "member_of": None,
}


def load(path: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        ConfigError: The file cannot be read, is no JSON, or has unknown, missing or wrong fields.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"cannot read it: {error.strerror}"]) from error
    except ValueError:
        # Without the cause, which would quote the text, secret and all.
        raise ConfigError(["it is not JSON"]) from None
    return parse(raw)


def parse(raw: Any) -> Config:
    """Check a decoded configuration.

    Raises:
        ConfigError: Unknown, missing or wrong fields; all of them are named.
    """
    problems: list[str] = []
    fields = _check("", raw, _CONFIG_RULES, problems)
    people = fields.get("identities")
    listed = people if isinstance(people, list) else []
    identities = [_check(f"identities[{at}].", item, _IDENTITY_RULES, problems) for at, item in enumerate(listed)]
    postgres, tls = fields.get("postgres"), None
    if isinstance(postgres, dict):
        postgres = _check("postgres.", postgres, _POSTGRES_RULES, problems)
        if isinstance(postgres.get("tls"), dict):
            tls = _check("postgres.tls.", postgres["tls"], _TLS_RULES, problems)
    if problems:
        raise ConfigError(problems)
    parsed = tuple(_identity(item) for item in identities)
    _check_relations(parsed, postgres, problems)
    if problems:
        raise ConfigError(problems)
    return Config(
        **{
            **fields,
            "key_file": Path(fields["key_file"]),
            "public_key_file": Path(fields["public_key_file"]),
            "identities": parsed,
            "postgres": _postgres(postgres, tls),
        }
    )


def _check(prefix: str, raw: Any, rules: dict[str, _Rule], problems: list[str]) -> dict[str, Any]:
    """Return the fields of an object with defaults filled in; add what is wrong with them to `problems`."""
    if not isinstance(raw, dict):
        problems.append(f"{prefix.rstrip('.') or 'the file'}: must be an object")
        return {}
    problems += [f"{prefix}{key}: unknown" for key in sorted(raw.keys() - rules.keys())]
    fields = {key: _DEFAULTS[key] for key in rules if key in _DEFAULTS} | raw
    for key, rule in rules.items():
        if key not in fields:
            problems.append(f"{prefix}{key}: missing")
        elif not rule.holds(fields[key]):
            # The rule, not the value: a value may be a secret.
            problems.append(f"{prefix}{key}: must be {rule.text}")
    return fields


def _check_relations(identities: tuple[Identity, ...], postgres: dict[str, Any] | None, problems: list[str]) -> None:
    known = {identity.client_id for identity in identities}
    if len(known) != len(identities):
        problems.append("identities: two have the same client_id")
    if postgres is not None:
        problems += [
            f"postgres.roles: {client_id} is not the client_id of an identity"
            for client_id in postgres["roles"]
            if client_id.lower() not in known
        ]
        if len(set(postgres["roles"].values())) != len(postgres["roles"]):
            # Two identities have two tokens, and a role has one password.
            problems.append("postgres.roles: two identities have the same role")


def _identity(fields: dict[str, Any]) -> Identity:
    resources = fields["resources"]
    return Identity(
        name=fields["name"],
        client_id=fields["client_id"].lower(),
        object_id=fields["object_id"].lower(),
        resources=None if resources is None else frozenset(item.rstrip("/") for item in resources),
    )


def _postgres(fields: dict[str, Any] | None, tls: dict[str, Any] | None) -> Postgres | None:
    if fields is None:
        return None
    front = None
    if tls is not None:
        front = TlsFront(**{**tls, "certificate": Path(tls["certificate"]), "key": Path(tls["key"])})
    roles = {client_id.lower(): role for client_id, role in fields["roles"].items()}
    return Postgres(fields["admin_dsn"], roles, fields["member_of"], front)
