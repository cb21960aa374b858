"""Where the twin keeps its state, and which ports it takes: from the environment, checked at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

REPOSITORY: Final = Path(__file__).resolve().parents[2]
"""The checkout: its twin is the same one from whatever folder the command is called."""

HOST: Final = "127.0.0.1"
"""The twin binds to loopback only; its passwords are public."""

APPS: Final = ("score", "ingest", "drift", "retrain")

STORAGE_ACCOUNT: Final = "devstoreaccount1"
STORAGE_KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's documented account and key, the same on every machine
(https://learn.microsoft.com/azure/storage/common/storage-connect-azurite)."""

HUB_KEY_NAME: Final = "RootManageSharedAccessKey"
HUB_KEY: Final = "SAS_KEY_VALUE"
"""The key of Microsoft's Event Hubs emulator, so that one connection string fits both brokers
(https://learn.microsoft.com/azure/event-hubs/test-locally-with-event-hub-emulator)."""

DATABASE: Final = "tollgate"
DATABASE_USER: Final = "tollgate"
DATABASE_PASSWORD: Final = "tollgate-local"  # noqa: S105 - opens a loopback port of a developer's machine, nothing else


def login_of(app: str) -> str:
    """The login of an app in Postgres, in a twin with keys."""
    return f"{app}-app"


def group_of(app: str) -> str:
    """The group role that holds an app's rights in Postgres."""
    return f"tollgate_{app}"


LOGINS: Final[Mapping[str, str]] = {login_of(app): group_of(app) for app in APPS}
"""Logins of the apps in Postgres, each with the group role whose rights it has; all with the same local password."""

CONTAINERS: Final = ("probes", "dead-letters", "models", "seals", "reports")
"""Blob containers that infrastructure makes in the cloud and `tollgate up` makes here."""

HUBS: Final[Mapping[str, tuple[int, tuple[str, ...]]]] = {
    "transactions": (4, ("ingest",)),
    "labels": (2, ("ingest",)),
    "decisions": (4, ("check",)),
}
"""Hub name to partitions and consumer groups besides `$Default`."""

type Port = int


class SettingsError(ValueError):
    """Settings of the twin that cannot be used; the message names each one."""


class TwinSettings(BaseModel):
    """The twin's own settings: `TOLLGATE_HOME` and one `TWIN_PORT_*` per listener."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(default=REPOSITORY / ".tollgate", alias="TOLLGATE_HOME", description="Folder of all state.")
    blob: Port = Field(default=10000, alias="TWIN_PORT_BLOB", ge=1, le=65535)
    queue: Port = Field(default=10001, alias="TWIN_PORT_QUEUE", ge=1, le=65535)
    table: Port = Field(default=10002, alias="TWIN_PORT_TABLE", ge=1, le=65535)
    amqp: Port = Field(default=5672, alias="TWIN_PORT_AMQP", ge=1, le=65535)
    amqps: Port = Field(default=5671, alias="TWIN_PORT_AMQPS", ge=1, le=65535)
    postgres: Port = Field(default=5433, alias="TWIN_PORT_POSTGRES", ge=1, le=65535)
    postgres_tls: Port = Field(default=5434, alias="TWIN_PORT_POSTGRES_TLS", ge=1, le=65535)
    identity: Port = Field(default=7070, alias="TWIN_PORT_IDENTITY", ge=1, le=65535)
    score: Port = Field(default=7071, alias="TWIN_PORT_SCORE", ge=1, le=65535)
    ingest: Port = Field(default=7072, alias="TWIN_PORT_INGEST", ge=1, le=65535)
    drift: Port = Field(default=7073, alias="TWIN_PORT_DRIFT", ge=1, le=65535)
    retrain: Port = Field(default=7074, alias="TWIN_PORT_RETRAIN", ge=1, le=65535)
    mlflow: Port = Field(default=5000, alias="TWIN_PORT_MLFLOW", ge=1, le=65535)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        taken: dict[int, str] = {}
        for name, port in self.ports().items():
            if port in taken:
                raise ValueError(f"{_variable(name)} and {_variable(taken[port])} are both {port}")
            taken[port] = name
        return self

    def ports(self) -> dict[str, Port]:
        """Every port, by the name of its listener."""
        return {name: getattr(self, name) for name in type(self).model_fields if name != "home"}

    def port_of(self, app: str) -> Port:
        """The port of a function app."""
        return self.ports()[app]

    @property
    def root(self) -> Path:
        """The state folder as an absolute path."""
        return self.home.expanduser().resolve()

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings; variables of others are left alone.

        Raises:
            SettingsError: With every problem: an unknown `TWIN_` variable, a malformed or doubled port.
        """
        known = {str(field.alias) for field in cls.model_fields.values()}
        unknown = sorted(name for name in environment if name.startswith("TWIN_PORT_") and name not in known)
        problems = [f"{name} is not a setting of the twin" for name in unknown]
        try:
            settings = cls.model_validate({name: value for name, value in environment.items() if name in known})
        except ValidationError as error:
            problems += [f"{'.'.join(map(str, item['loc']))} {item['msg']}".strip() for item in error.errors()]
            raise SettingsError("; ".join(problems)) from error
        if problems:
            raise SettingsError("; ".join(problems))
        return settings

    def storage_connection(self, scheme: str = "http") -> str:
        """The connection string of Azurite."""
        return ";".join(
            (
                f"DefaultEndpointsProtocol={scheme}",
                f"AccountName={STORAGE_ACCOUNT}",
                f"AccountKey={STORAGE_KEY}",
                f"BlobEndpoint={scheme}://{HOST}:{self.blob}/{STORAGE_ACCOUNT}",
                f"QueueEndpoint={scheme}://{HOST}:{self.queue}/{STORAGE_ACCOUNT}",
                f"TableEndpoint={scheme}://{HOST}:{self.table}/{STORAGE_ACCOUNT}",
                "",
            )
        )

    def hub_connection(self) -> str:
        """The connection string of the broker, or of Microsoft's emulator on the same port."""
        return (
            f"Endpoint=sb://{HOST}:{self.amqp};SharedAccessKeyName={HUB_KEY_NAME};"
            f"SharedAccessKey={HUB_KEY};UseDevelopmentEmulator=true;"
        )

    def database_dsn(self, user: str = DATABASE_USER) -> str:
        """The connection string of Postgres, for the owner of the database or another login."""
        return f"postgresql://{user}:{DATABASE_PASSWORD}@{HOST}:{self.postgres}/{DATABASE}"


def _variable(listener: str) -> str:
    return f"TWIN_PORT_{listener.upper()}"
