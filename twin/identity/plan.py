"""What a keyless twin needs: the endpoint's configuration, and the settings that make apps and services use it.

`prepare` is called each time before services are laid out. It is idempotent: secrets, keys and certificates are made
once in its folder and kept, so that what is running goes on working; the configuration file is always that of the call.
"""

from __future__ import annotations

import json
import secrets
import sys
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from twin.identity import certificates, files, signing
from twin.identity.server import HEALTH_PATH, TOKEN_PATH

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

    from twin.identity.certificates import Certificates

HOST: Final = "127.0.0.1"
# The name in the certificates that a person would also type.
NAME: Final = "localhost"
STORAGE_ACCOUNT: Final = "devstoreaccount1"
AMQPS_PORT: Final = 5671
# With and without a slash: the SDKs of different languages do not agree.
HUBS_AUDIENCE: Final = ("https://eventhubs.azure.net", "https://eventhubs.azure.net/")
TOKEN_LIFETIME_S: Final = 3600
# Ids are made from names, so that they are the same on every machine and in every run.
_IDS: Final = uuid.UUID("0a7e3c52-9d1b-4c55-8a5e-61f1b7f3a9d0")


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of a keyless twin.

    Attributes:
        endpoint: The identity endpoint.
        blob: Azurite's blobs.
        queue: Azurite's queues.
        amqps: The broker's TLS listener.
        postgres_tls: The TLS listener in front of Postgres; made by the endpoint.
        postgres: Postgres itself.
    """

    endpoint: int
    blob: int
    queue: int
    amqps: int
    postgres_tls: int
    postgres: int


@dataclass(frozen=True, slots=True)
class Database:
    """The database that apps log in to with tokens.

    Attributes:
        admin_dsn: Login that may make and alter roles; holds a password, so not in the repr.
        name: The database.
        owner: Role whose rights the apps' roles inherit; None for none.
    """

    admin_dsn: str = field(repr=False)
    name: str
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A keyless twin before it runs.

    Attributes:
        config_file: The endpoint's configuration, mode 0600.
        config_text: What is in it; holds secrets, so not in the repr.
        command: How the endpoint is started.
        health_url: Answers 200 once the endpoint serves and Postgres answers it.
        certificates: For Azurite (`--cert`, `--key`) and the broker (`tls`).
        broker_tokens: The broker's `tokens` section.
        environment: Variables of every process that is a client: where tokens come from (a secret, so not in the
            repr) and whom to trust.
    """

    config_file: Path
    config_text: str = field(repr=False)
    command: tuple[str, ...]
    health_url: str
    certificates: Certificates
    broker_tokens: dict[str, Any]
    environment: dict[str, str] = field(repr=False)
    _ports: Ports
    _database: str

    def settings(
        self, who: str, *, storage: Iterable[str] = (), hubs: Iterable[str] = (), postgres: Iterable[str] = ()
    ) -> dict[str, str]:
        """Return the app settings that stand for connection strings: what infrastructure sets in the cloud.

        Args:
            who: The app, or whoever else was named to `prepare`.
            storage: Names of its storage connections.
            hubs: Names of its event hubs connections.
            postgres: Names of its Postgres connections.
        """
        parts = {name: self._storage() for name in storage}
        parts |= {name: self._hubs() for name in hubs}
        parts |= {name: self._postgres(who) for name in postgres}
        caller = {"credential": "managedidentity", "clientId": client_id(who)}
        return {f"{name}__{part}": text for name, own in parts.items() for part, text in (own | caller).items()}

    def _storage(self) -> dict[str, str]:
        ports = {"blob": self._ports.blob, "queue": self._ports.queue}
        return {f"{kind}ServiceUri": f"https://{NAME}:{port}/{STORAGE_ACCOUNT}" for kind, port in ports.items()}

    def _hubs(self) -> dict[str, str]:
        port = self._ports.amqps
        return {"fullyQualifiedNamespace": NAME if port == AMQPS_PORT else f"{NAME}:{port}"}

    def _postgres(self, who: str) -> dict[str, str]:
        return {"host": NAME, "port": str(self._ports.postgres_tls), "database": self._database, "user": role(who)}


def prepare(
    folder: Path, names: Iterable[str], *, ports: Ports, database: Database, now: datetime, roots: Path | None = None
) -> Plan:
    """Lay out a keyless twin; make what is missing in `folder`. Nothing is started.

    Args:
        folder: Where keys, certificates and configuration are; closed to other users.
        names: Who gets an identity: the apps, and whoever else has to log in.
        ports: Where everything listens.
        database: What tokens for Postgres are good for.
        now: Aware time, for the certificates.
        roots: The user's own file of trusted roots, if one is set (`SSL_CERT_FILE`).

    Raises:
        OSError: The folder cannot be written, or `roots` cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with files.locked(folder):
        made, key, header = certificates.ensure(folder, now, roots), signing.ensure(folder), _secret(folder / "header")
    tenant = str(uuid.uuid5(_IDS, "tenant"))
    people = list(names)
    config = {
        "host": HOST,
        "port": ports.endpoint,
        "header": header,
        # Azurite takes tokens of Entra's own issuers only.
        "issuer": f"https://sts.windows.net/{tenant}/",
        "tenant_id": tenant,
        "key_file": str(key.private),
        "public_key_file": str(key.public),
        "token_lifetime_s": TOKEN_LIFETIME_S,
        "identities": [_identity(name) for name in people],
        "postgres": _postgres_section(people, ports, database, made),
    }
    text = json.dumps(config, indent=2)
    config_file = folder / "identity.json"
    files.write(config_file, text.encode(), files.PRIVATE)
    origin = f"http://{HOST}:{ports.endpoint}"
    where = {"IDENTITY_ENDPOINT": origin + TOKEN_PATH, "IDENTITY_HEADER": header}
    return Plan(
        config_file=config_file,
        config_text=text,
        command=(sys.executable, "-m", "twin.identity", "--config", str(config_file)),
        health_url=origin + HEALTH_PATH,
        certificates=made,
        broker_tokens={
            "issuer": config["issuer"],
            "audience": list(HUBS_AUDIENCE),
            "public_key_file": str(key.public),
        },
        environment=where | certificates.trust_environment(made),
        _ports=ports,
        _database=database.name,
    )


def _postgres_section(people: list[str], ports: Ports, database: Database, made: Certificates) -> dict[str, Any]:
    return {
        "admin_dsn": database.admin_dsn,
        "roles": {client_id(name): role(name) for name in people},
        "member_of": database.owner,
        "tls": {
            "port": ports.postgres_tls,
            "certificate": str(made.certificate),
            "key": str(made.key),
            "server_host": HOST,
            "server_port": ports.postgres,
        },
    }


def client_id(name: str) -> str:
    """Return the client id of a named identity."""
    return str(uuid.uuid5(_IDS, f"client/{name}"))


def role(name: str) -> str:
    """Return the database role of a named identity; in Azure it is the name of the managed identity."""
    return f"{name}-identity"


def _identity(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "client_id": client_id(name),
        "object_id": str(uuid.uuid5(_IDS, f"object/{name}")),
        "resources": None,
    }


def _secret(path: Path) -> str:
    """Return the secret in a file; make it on first use."""
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        made = secrets.token_hex(32)
        files.write(path, made.encode("ascii"), files.PRIVATE)
        return made
