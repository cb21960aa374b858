"""The configuration of a stack: every size and switch, with defaults per profile, checked before anything runs.

Values come from `Pulumi.<stack>.yaml` under `tollgate:`; names there are in camel case. Whatever is not set has the
value of the profile (`dev` or `prod`). All problems are reported at once, an unknown name among them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

PROJECT: Final = "tollgate"

GUID: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"

SYSTEM_CONNECTIONS: Final = 15
"""Connections that Azure keeps for itself on a flexible server. Source: "Limits in Azure Database for PostgreSQL"."""
OTHER_CONNECTIONS: Final = 20
"""Kept free for migrations, people, the registry and dashboards."""


@dataclass(frozen=True, slots=True)
class PostgresSize:
    """What a compute size of a flexible server bears.

    Attributes:
        tier: The tier that the size belongs to.
        connections: `max_connections` by default. Source: "Limits in Azure Database for PostgreSQL", read 2026-11.
        cores: Virtual cores; 1 of a burstable size is shared and paid for by credits.
    """

    tier: Literal["Burstable", "GeneralPurpose"]
    connections: int
    cores: int


POSTGRES_SIZES: Final[dict[str, PostgresSize]] = {
    "Standard_B1ms": PostgresSize("Burstable", 50, 1),
    "Standard_B2s": PostgresSize("Burstable", 429, 2),
    "Standard_D2ds_v5": PostgresSize("GeneralPurpose", 859, 2),
    "Standard_D4ds_v5": PostgresSize("GeneralPurpose", 1718, 4),
    "Standard_D8ds_v5": PostgresSize("GeneralPurpose", 3437, 8),
    "Standard_D16ds_v5": PostgresSize("GeneralPurpose", 5000, 16),
    "Standard_D32ds_v5": PostgresSize("GeneralPurpose", 5000, 32),
}

STORAGE_SIZES_GB: Final = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


def _boolean(value: Any) -> Any:
    """Pulumi hands every value over as text, and only these two are booleans; `yes` is a mistake."""
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def _number(value: Any) -> Any:
    """A literal of numbers does not take text by itself."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


Switch = Annotated[bool, Field(strict=True), BeforeValidator(_boolean)]
Memory = Annotated[Literal[512, 2048, 4096], BeforeValidator(_number)]

PROFILES: Final[dict[str, dict[str, Any]]] = {
    "dev": {
        "private_network": False,
        "locks": False,
        "score_always_ready": 0,
        "score_max_instances": 40,
        "storage_redundancy": "Standard_LRS",
        "hub_partitions": 4,
        "hub_units": 1,
        "hub_max_units": 2,
        "hub_retention_days": 1,
        "postgres_size": "Standard_B2s",
        "postgres_storage_gb": 32,
        "postgres_backup_days": 7,
        "postgres_geo_backup": False,
        "postgres_high_availability": False,
        "log_retention_days": 30,
        "log_daily_gb": 1,
        "seal_retention_days": 1,
        "budget_usd": 100,
    },
    "prod": {
        "private_network": True,
        "locks": True,
        "score_always_ready": 2,
        "score_max_instances": 100,
        "storage_redundancy": "Standard_ZRS",
        "hub_partitions": 32,
        "hub_units": 2,
        "hub_max_units": 10,
        "hub_retention_days": 7,
        "postgres_size": "Standard_D4ds_v5",
        "postgres_storage_gb": 512,
        "postgres_backup_days": 35,
        "postgres_geo_backup": True,
        "postgres_high_availability": True,
        "log_retention_days": 90,
        "log_daily_gb": 20,
        "seal_retention_days": 2555,
        "budget_usd": 2500,
    },
}
"""Defaults by profile. `docs/capacity.md` says for which load each is made."""


class StackConfig(BaseModel):
    """One stack. Fields without a default in `PROFILES` are asked for, those with one may be overridden."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, str_strip_whitespace=True)

    environment: str = Field(pattern=r"^[a-z][a-z0-9]{1,7}$", description="Name of the stack; part of every name.")
    profile: Literal["dev", "prod"] = Field(description="Which defaults apply.")

    location: str = Field(pattern=r"^[a-z0-9]+$", description="Azure region, such as `westeurope`.")
    subscription_id: str = Field(pattern=GUID, description="The subscription, for role definitions and names.")
    tenant_id: str = Field(pattern=GUID, description="The Entra tenant.")
    operators_id: str = Field(pattern=GUID, description="Object id of the Entra group that owns the database.")
    operators_name: str = Field(
        min_length=1, max_length=63, description="Its display name: the role it has in Postgres (63 bytes)."
    )
    alert_email: str = Field(
        pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$", description="Who hears of alerts and of the budget."
    )
    budget_start: dt.date = Field(description="First day of a month; Azure wants a budget to start at one.")

    private_network: Switch = Field(description="Virtual network and private endpoints; no public data services.")
    deployer_address: str = Field(
        default="",
        pattern=r"^$|^(\d{1,3}\.){3}\d{1,3}$",
        description="One public IPv4 address that may reach the database of a stack without a network of its own.",
    )
    public_scoring: Switch = Field(default=True, description="The scoring endpoint answers the internet (HTTPS, keys).")
    locks: Switch = Field(description="Delete locks on what holds state.")
    deploy_code: Switch = Field(default=True, description="Migrate the database and publish the packages.")
    packages_folder: str = Field(
        default="build/packages", min_length=1, description="Where `tollgate package` put them; seen from the checkout."
    )

    score_memory_mb: Memory = Field(default=2048, description="Memory per instance; 2048 has a core.")
    score_max_instances: int = Field(ge=40, le=1000, description="Upper bound of the scoring app's instances.")
    score_always_ready: int = Field(ge=0, le=100, description="Instances that never sleep.")
    score_concurrency: int = Field(default=64, ge=1, le=1000, description="HTTP requests at a time per instance.")
    score_workers: int = Field(default=2, ge=1, le=10, description="Worker processes per instance of score, ingest.")
    ingest_memory_mb: Memory = Field(default=2048, description="Memory per instance.")
    retrain_memory_mb: Memory = Field(default=4096, description="Memory per instance; training.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", description="Of all apps.")

    storage_redundancy: Literal["Standard_LRS", "Standard_ZRS", "Standard_GZRS", "Standard_RAGZRS"] = Field(
        description="How often Azure keeps each blob of the data account."
    )
    hub_partitions: int = Field(ge=1, le=32, description="Partitions of each hub: the limit of parallel ingest.")
    hub_units: int = Field(ge=1, le=40, description="Throughput units at rest; one takes 1 MB/s or 1,000 events/s.")
    hub_max_units: int = Field(ge=1, le=40, description="Throughput units under load.")
    hub_retention_days: int = Field(ge=1, le=7, description="How long an event can be read again; Standard: 7 days.")

    postgres_size: str = Field(description="Compute size of the flexible server.")
    postgres_storage_gb: int = Field(description="Storage at the start; it grows by itself.")
    postgres_backup_days: int = Field(ge=7, le=35, description="How far back a restore to a point in time reaches.")
    postgres_geo_backup: Switch = Field(description="A copy of the backups in the paired region; only at creation.")
    postgres_high_availability: Switch = Field(description="A standby in another zone.")

    log_retention_days: int = Field(ge=30, le=730, description="How long Log Analytics keeps a line.")
    log_daily_gb: float = Field(gt=0, le=500, description="What a day of logs may take in before it is cut off.")
    seal_retention_days: int = Field(ge=1, le=3650, description="How long nobody may alter a seal of the decision log.")
    budget_usd: int = Field(ge=1, le=1_000_000, description="Per month; 80 % and 100 % are reported.")

    notify_smtp_host: str = Field(
        default="", pattern=r"^$|^[A-Za-z0-9.-]+$", description="Mail server for notices to alertEmail; empty for none."
    )
    notify_smtp_port: int = Field(default=587, ge=1, le=65535, description="Its port, with STARTTLS.")
    notify_smtp_user: str = Field(default="", description="Login; its password is put into the vault by hand.")
    notify_mail_from: str = Field(
        default="", pattern=r"^$|^[^@\s]+@[^@\s]+\.[^@\s]+$", description="Sender; needed with notifySmtpHost."
    )
    notify_link_base: str = Field(
        default="", pattern=r"^$|^https://[!-~]+$", description="Address of the drift app as people reach it."
    )

    entra_client_id: str = Field(
        default="", pattern=r"^$|" + GUID, description="App registration; when set, callers of score need its token."
    )
    mlflow: Switch = Field(default=False, description="An MLflow server in a Container App.")
    mlflow_image: str = Field(
        default="", pattern=r"^$|^[a-z0-9.-]+(/[a-z0-9._-]+)+@sha256:[0-9a-f]{64}$", description="Its image, by digest."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = []
        size = POSTGRES_SIZES.get(self.postgres_size)
        if size is None:
            problems.append(f"postgresSize: one of {', '.join(POSTGRES_SIZES)}")
        else:
            usable = size.connections - SYSTEM_CONNECTIONS - OTHER_CONNECTIONS
            if self.connections_at_most > usable:
                problems.append(
                    f"postgresSize: {self.postgres_size} has {usable} connections to give, "
                    f"the apps can open {self.connections_at_most}"
                )
            if self.postgres_high_availability and size.tier == "Burstable":
                problems.append("postgresHighAvailability: not on a burstable size")
        if self.postgres_storage_gb not in STORAGE_SIZES_GB:
            problems.append(f"postgresStorageGb: one of {', '.join(map(str, STORAGE_SIZES_GB))}")
        if self.hub_max_units < self.hub_units:
            problems.append("hubMaxUnits: at least hubUnits")
        if self.score_always_ready > self.score_max_instances:
            problems.append("scoreAlwaysReady: at most scoreMaxInstances")
        if self.budget_start.day != 1:
            problems.append("budgetStart: the first day of a month")
        if self.profile == "prod" and not self.private_network:
            problems.append("privateNetwork: cannot be switched off with the profile prod")
        if self.private_network and self.deployer_address:
            problems.append("deployerAddress: a private network has no public door to open")
        if not self.public_scoring and not self.private_network:
            problems.append("publicScoring: cannot be switched off without privateNetwork, nobody could score")
        if self.notify_smtp_host and not self.notify_mail_from:
            problems.append("notifyMailFrom: needed with notifySmtpHost")
        if self.mlflow and not self.private_network:
            problems.append("mlflow: needs privateNetwork, because the server has no login of its own")
        if self.mlflow and not self.mlflow_image:
            problems.append("mlflowImage: needed with mlflow, by digest")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def connections_at_most(self) -> int:
        """Database connections if every app runs as many instances as it may; ingest at most one per partition."""
        ingest = min(2 * self.hub_partitions, INGEST_MAX_INSTANCES)
        return connections_of((self.score_max_instances + ingest) * self.score_workers)

    @property
    def postgres(self) -> PostgresSize:
        """What the chosen compute size bears."""
        return POSTGRES_SIZES[self.postgres_size]


INGEST_MAX_INSTANCES: Final = 64
"""Two hubs of at most 32 partitions: more instances would have nothing to read."""


WORKER_CONNECTIONS: Final = 3
"""Of a worker process of score or ingest. It keeps two: its ledger's, and that of look-ups (score) or of dead letters
(ingest). The third is of the moment: counts, readiness, the view of a new champion, the outbox."""

TIMER_CONNECTIONS: Final = {"ingest": 4, "drift": 16, "retrain": 18}
"""Of an instance whose timers all fire at once; most are closed after each firing. Ingest: maturing takes two, the
outbox and the run log one each. A test counts those of drift and retrain in their composition roots."""


def connections_of(workers: int) -> int:
    """Database connections that the apps can open.

    Args:
        workers: Processes of score and ingest. Timers run on one instance each, with a second one during a change.
    """
    return workers * WORKER_CONNECTIONS + 2 * sum(TIMER_CONNECTIONS.values())


class ConfigError(ValueError):
    """Configuration that is missing, malformed, unknown or contradictory; `problems` has a sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("configuration: " + "; ".join(problems))
        self.problems = problems


def read_config(values: Mapping[str, Any], stack: str) -> StackConfig:
    """Read the configuration of a stack.

    Args:
        values: What stands under `tollgate:`, without the prefix. Values are text, as Pulumi hands them over.
        stack: Name of the stack: the environment, and the profile where `profile` does not say otherwise.

    Raises:
        ConfigError: With every problem.
    """
    known = {to_camel(name) for name in StackConfig.model_fields} - {"environment"}
    problems = []
    for name in sorted(set(values) - known):
        near = get_close_matches(name, sorted(known), n=1, cutoff=0.6)
        problems.append(f"{name} is not a setting" + (f"; is {near[0]} meant?" if near else ""))
    profile = values.get("profile", stack)
    if profile not in PROFILES:
        raise ConfigError([*problems, f"profile: one of {', '.join(PROFILES)}, and the stack is called {stack!r}"])
    defaults = {to_camel(name): value for name, value in PROFILES[profile].items()}
    given = {name: value for name, value in values.items() if name in known}
    try:
        config = StackConfig.model_validate({**defaults, **given, "environment": stack, "profile": profile})
    except ValidationError as error:
        problems += [_sentence(item["loc"], item["msg"]) for item in error.errors()]
        raise ConfigError(problems) from error
    if problems:
        raise ConfigError(problems)
    return config


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    text = message.removeprefix("Value error, ")
    return text if not location else f"{location[0]}: {text[:1].lower()}{text[1:]}"
