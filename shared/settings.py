"""Typed settings of each app: read from the environment only, checked at start, all problems reported at once.

Connections follow the convention of Azure Functions: `<NAME>` holds a connection string, or `<NAME>__<part>` name an
identity-based connection. Here it is only checked that one is there; `shared.adapters.connections` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from shared.domain.cost_policy import (
    BASIS_POINTS,
    DECLINE_MARGIN_BP,
    GOODWILL_COST_MINOR,
    MAX_REVIEWS_PER_DAY,
    REVIEW_COST_MINOR,
    Capacity,
    CostPolicy,
    Costs,
)
from shared.domain.decision import DecidingPolicy, Policy
from shared.domain.errors import InvalidInput
from shared.domain.feature_view import VIEWS
from shared.domain.instants import US_PER_DAY
from shared.domain.policy_choice import Origin, PolicyRule
from shared.domain.retention import LEAST_FIGURES_DAYS, LEAST_RUNS_DAYS, LEAST_SHADOW_DAYS, TAKEN_DAYS, Keeping
from shared.domain.surrogates import KeyRing, parse_key_ring
from shared.domain.transaction import MAX_AMOUNT_MINOR

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

CONTAINER_PATTERN = r"^[a-z0-9](-?[a-z0-9]){2,62}$"
HUB_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,255}$"
KEEPING = Keeping()
"""The domain says for how long things are kept unless somebody sets it."""


class SettingsError(ValueError):
    """Settings that are missing, malformed or unknown; `problems` has one sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("settings: " + "; ".join(problems))
        self.problems = problems


class AppSettings(BaseModel):
    """What every app reads; field names in upper case, or the alias, are the names of the app settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=False, str_strip_whitespace=True)

    connections: ClassVar[tuple[str, ...]] = ("AzureWebJobsStorage", "DATA_STORAGE", "DATABASE")
    """Connections the app needs: the host keeps its own state in the first, the app its data in the others."""

    functions_worker_runtime: Literal["python"] = Field(
        default="python",  # Flex Consumption knows it from the app's runtime and refuses it as an app setting
        alias="FUNCTIONS_WORKER_RUNTIME",
        description="The worker's language; read by the host.",
    )
    functions_worker_process_count: int = Field(
        default=1, alias="FUNCTIONS_WORKER_PROCESS_COUNT", ge=1, le=10, description="Worker processes per instance."
    )
    log_level: LogLevel = Field(default="INFO", alias="LOG_LEVEL", description="Lowest level that Tollgate logs.")

    @classmethod
    def names(cls) -> set[str]:
        """The settings the app reads, connections by their plain name."""
        return {str(field.alias) for field in cls.model_fields.values()} | set(cls.connections)

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Read settings from environment variables; variables of others are left alone.

        Raises:
            SettingsError: With every problem: missing, malformed, no connection, or a near miss of a known name.
        """
        problems = [*_missing_connections(cls.connections, environment), *_near_misses(cls.names(), environment)]
        known = {str(field.alias) for field in cls.model_fields.values()}
        values = {name: value for name, value in environment.items() if name in known}
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            problems += [_sentence(".".join(map(str, item["loc"])), item["msg"]) for item in error.errors()]
            raise SettingsError(problems) from error
        if problems:
            raise SettingsError(problems)
        return settings


class ProbeSettings(AppSettings):
    """What apps read that handle receipts of probes."""

    probes_container: str = Field(
        default="probes", alias="PROBES_CONTAINER", pattern=CONTAINER_PATTERN, description="Receipts of probes."
    )


class CostSettings(AppSettings):
    """What apps read that weigh outcomes by what they cost."""

    review_cost_minor: int = Field(
        default=REVIEW_COST_MINOR,
        alias="REVIEW_COST_MINOR",
        ge=1,
        le=MAX_AMOUNT_MINOR,
        description="What a review costs, minor units.",
    )
    decline_margin_bp: int = Field(
        default=DECLINE_MARGIN_BP,
        alias="DECLINE_MARGIN_BP",
        ge=0,
        le=BASIS_POINTS,
        description="Share of the amount that is lost with a wrong decline, basis points.",
    )
    goodwill_cost_minor: int = Field(
        default=GOODWILL_COST_MINOR,
        alias="GOODWILL_COST_MINOR",
        ge=0,
        le=MAX_AMOUNT_MINOR,
        description="What a wrong decline costs beside that, minor units.",
    )
    policy_declines: bool = Field(
        default=True, alias="POLICY_DECLINES", description="Whether expected-loss-v1 may decline, or only review."
    )
    reviews_per_day: int = Field(
        default=0,
        alias="REVIEWS_PER_DAY",
        ge=0,
        le=MAX_REVIEWS_PER_DAY,
        description="Transactions that people can review on an average day; 0 for as many as pay.",
    )

    @property
    def costs(self) -> Costs:
        """What outcomes cost."""
        return Costs(
            self.review_cost_minor, self.decline_margin_bp, self.goodwill_cost_minor, declines=self.policy_declines
        )

    @property
    def capacity(self) -> Capacity | None:
        """How many reviews there are people for; None for no limit."""
        return Capacity(self.reviews_per_day, self.costs) if self.reviews_per_day else None


class PolicySettings(CostSettings):
    """What says how a score becomes a decision."""

    policy_name: Literal["fixed-v1", "expected-loss-v1"] = Field(
        default="fixed-v1",
        alias="POLICY",
        description="How a score becomes a decision: by two thresholds, or by what is expected to cost least.",
    )
    fraud_threshold: float = Field(
        default=0.8, alias="FRAUD_THRESHOLD", gt=0, le=1, description="Calibrated score from which on it is declined."
    )
    review_threshold: float = Field(
        default=0.3,
        alias="REVIEW_THRESHOLD",
        gt=0,
        le=1,
        description="Calibrated score from which on it is reviewed; at most FRAUD_THRESHOLD.",
    )
    thresholds_from: Origin = Field(
        default=Origin.SETTINGS,
        alias="THRESHOLDS_FROM",
        description="Whose thresholds fixed-v1 takes: REVIEW_THRESHOLD and FRAUD_THRESHOLD, or the model's own.",
    )
    review_shadow_price_minor: int = Field(
        default=0,
        alias="REVIEW_SHADOW_PRICE_MINOR",
        ge=0,
        le=MAX_AMOUNT_MINOR,
        description="What a review must save beyond its cost, minor units, where the model brings no price.",
    )

    @property
    def policy(self) -> DecidingPolicy:
        """The policy by settings alone; the thresholds must make sense whether it is theirs or not."""
        fixed = Policy(self.review_threshold, self.fraud_threshold)
        return fixed if self.policy_name == fixed.name else CostPolicy(self.costs, self.review_shadow_price_minor)

    @property
    def policy_rule(self) -> PolicyRule:
        """How the policy follows from these settings and the model that decides."""
        return PolicyRule(self.policy, self.capacity, self.thresholds_from)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        try:
            _ = self.policy
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        return self


class DecidingSettings(PolicySettings, ProbeSettings):
    """What apps read that decide."""

    currency: str = Field(
        default="EUR",
        alias="CURRENCY",
        pattern="^[A-Z]{3}$",
        description="The one currency that amounts are decided in, ISO 4217; others are refused.",
    )
    event_max_age_days: int = Field(
        default=7,
        alias="EVENT_MAX_AGE_DAYS",
        ge=1,
        le=366,
        description="Transactions that happened longer ago are refused, days.",
    )
    surrogate_keys: SecretStr = Field(
        alias="SURROGATE_KEYS",
        description="Secret. Keys of surrogates: `<id>:<base64>` with commas, the current one first.",
    )
    models_container: str = Field(
        default="models", alias="MODELS_CONTAINER", pattern=CONTAINER_PATTERN, description="Model bundles and pointers."
    )
    champion_poll_s: float = Field(
        default=2,
        alias="CHAMPION_POLL_S",
        ge=0.1,
        le=3600,
        description="How often the champion's pointer is looked at, seconds.",
    )
    state_cache_mib: int = Field(
        default=32,
        alias="STATE_CACHE_MIB",
        ge=1,
        le=4096,
        description="Memory for the states of entities used last, of each process, MiB.",
    )
    meters_flush_s: float = Field(
        default=10,
        alias="METERS_FLUSH_S",
        ge=0.05,
        le=600,
        description="How often a process writes what it counted, seconds.",
    )

    @property
    def lateness_us(self) -> int:
        """How old a transaction may be, microseconds."""
        return self.event_max_age_days * US_PER_DAY

    @property
    def key_ring(self) -> KeyRing:
        """The surrogate keys."""
        return parse_key_ring(self.surrogate_keys.get_secret_value())

    @property
    def state_cache_bytes(self) -> int:
        """Bound of the memory for states of entities, of each process."""
        return self.state_cache_mib << 20

    @model_validator(mode="after")
    def _decides(self) -> Self:
        try:
            _ = self.key_ring
        except InvalidInput as error:
            raise ValueError(str(error)) from None  # the cause might quote a key
        return self


class ScoreSettings(DecidingSettings):
    """The score app."""

    deadline_ms: int = Field(
        default=5000, alias="SCORE_DEADLINE_MS", ge=50, le=55_000, description="How long a request may take, ms."
    )
    queue_limit: int = Field(
        default=2000, alias="QUEUE_LIMIT", ge=1, le=100_000, description="Transactions that may wait, per process."
    )
    batch_limit: int = Field(
        default=1000, alias="BATCH_LIMIT", ge=1, le=1000, description="Transactions in one request at most."
    )
    body_limit_bytes: int = Field(
        default=1 << 20, alias="BODY_LIMIT_BYTES", ge=1024, le=100 << 20, description="Largest request body, bytes."
    )
    cors_origins: str = Field(
        default="", alias="CORS_ORIGINS", description="Origins of web pages that may call the app, with commas, or `*`."
    )

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.queue_limit < self.batch_limit:
            raise ValueError("QUEUE_LIMIT must not be less than BATCH_LIMIT")
        return self


GROUP_PATTERN = r"^(\$Default|[A-Za-z0-9][A-Za-z0-9._-]{0,49})$"


class IngestSettings(DecidingSettings):
    """The ingest app."""

    connections: ClassVar[tuple[str, ...]] = (*DecidingSettings.connections, "EVENT_HUBS")

    transactions_hub: str = Field(
        alias="TRANSACTIONS_HUB", pattern=HUB_PATTERN, description="The hub that transactions arrive on."
    )
    transactions_group: str = Field(
        alias="TRANSACTIONS_GROUP", pattern=GROUP_PATTERN, description="Its consumer group."
    )
    labels_hub: str = Field(alias="LABELS_HUB", pattern=HUB_PATTERN, description="The hub that labels arrive on.")
    labels_group: str = Field(alias="LABELS_GROUP", pattern=GROUP_PATTERN, description="Its consumer group.")
    decisions_hub: str = Field(
        alias="DECISIONS_HUB", pattern=HUB_PATTERN, description="The hub that decisions leave on."
    )
    publish_schedule: str = Field(
        alias="PUBLISH_SCHEDULE", min_length=9, description="When decisions leave: six fields, seconds first, UTC."
    )
    dead_letters_container: str = Field(
        default="dead-letters",
        alias="DEAD_LETTERS_CONTAINER",
        pattern=CONTAINER_PATTERN,
        description="Copies of the events that cannot be used, with their reason.",
    )


ADDRESS_PATTERN = r"^$|^https?://[!-~]+$"
UNRESOLVED = "@Microsoft.KeyVault("
"""How a reference into the vault begins; the platform hands it over as it is while the vault has no such secret
(https://learn.microsoft.com/azure/app-service/app-service-key-vault-references)."""


class NotifySettings(ProbeSettings):
    """Channels by which people are told; a channel without an address is off."""

    notify_smtp_host: str = Field(default="", alias="NOTIFY_SMTP_HOST", description="Mail server; empty for no mail.")
    notify_smtp_port: int = Field(default=587, alias="NOTIFY_SMTP_PORT", ge=1, le=65535, description="Its port.")
    notify_smtp_tls: Literal["starttls", "tls", "none"] = Field(
        default="starttls", alias="NOTIFY_SMTP_TLS", description="How the connection to it is protected."
    )
    notify_smtp_user: str = Field(default="", alias="NOTIFY_SMTP_USER", description="Login; empty for none.")
    notify_smtp_password: SecretStr = Field(
        default=SecretStr(""), alias="NOTIFY_SMTP_PASSWORD", description="Secret. Password of the login."
    )
    notify_mail_from: str = Field(default="", alias="NOTIFY_MAIL_FROM", description="Sender of mails.")
    notify_mail_to: str = Field(default="", alias="NOTIFY_MAIL_TO", description="Recipients of mails, with commas.")
    notify_slack_url: SecretStr = Field(
        default=SecretStr(""),
        alias="NOTIFY_SLACK_URL",
        description="Secret. Incoming webhook of Slack; empty for none.",
    )
    notify_webhook_url: SecretStr = Field(
        default=SecretStr(""), alias="NOTIFY_WEBHOOK_URL", description="Secret. Address to post to; empty for none."
    )
    notify_webhook_secret: SecretStr = Field(
        default=SecretStr(""), alias="NOTIFY_WEBHOOK_SECRET", description="Secret. Key of the posts' signature."
    )
    notify_per_hour: int = Field(
        default=20, alias="NOTIFY_PER_HOUR", ge=1, le=1000, description="Notices in one channel and hour at most."
    )
    notify_give_up_days: int = Field(
        default=3, alias="NOTIFY_GIVE_UP_DAYS", ge=1, le=30, description="How long a channel that fails is tried, days."
    )
    notify_link_base: str = Field(
        default="",
        alias="NOTIFY_LINK_BASE",
        pattern=ADDRESS_PATTERN,
        description="Address of the drift app as people reach it, before links that are paths.",
    )

    @property
    def mail_recipients(self) -> tuple[str, ...]:
        """Who gets mails."""
        return tuple(text.strip() for text in self.notify_mail_to.split(",") if text.strip())

    @field_validator(
        "notify_smtp_password", "notify_slack_url", "notify_webhook_url", "notify_webhook_secret", mode="after"
    )
    @classmethod
    def _resolved(cls, value: SecretStr) -> SecretStr:
        return SecretStr("") if value.get_secret_value().startswith(UNRESOLVED) else value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.notify_smtp_host and not (self.notify_mail_from and self.mail_recipients):
            raise ValueError("NOTIFY_MAIL_FROM and NOTIFY_MAIL_TO must be set beside NOTIFY_SMTP_HOST")
        if self.notify_smtp_user and self.notify_smtp_tls == "none":
            raise ValueError("NOTIFY_SMTP_TLS must not be none with NOTIFY_SMTP_USER: the password would go in clear")
        return self


class DriftSettings(NotifySettings):
    """The drift app."""

    connections: ClassVar[tuple[str, ...]] = (*AppSettings.connections, "EVENT_HUBS")

    transactions_hub: str = Field(
        alias="TRANSACTIONS_HUB", pattern=HUB_PATTERN, description="The hub that probes are sent to."
    )
    probe_schedule: str = Field(
        alias="PROBE_SCHEDULE", min_length=9, description="When a probe is sent: six fields, seconds first, UTC."
    )
    models_container: str = Field(
        default="models", alias="MODELS_CONTAINER", pattern=CONTAINER_PATTERN, description="Model bundles and pointers."
    )
    drift_schedule: str = Field(
        alias="DRIFT_SCHEDULE", min_length=9, description="When drift is looked for: six fields, seconds first, UTC."
    )
    drift_psi_floor: float = Field(
        default=0.05, alias="DRIFT_PSI_FLOOR", ge=0, le=10, description="PSI below which drift wakes nobody."
    )
    drift_psi_medium: float = Field(
        default=0.3, alias="DRIFT_PSI_MEDIUM", gt=0, le=10, description="PSI that opens a trigger of medium priority."
    )
    drift_psi_high: float = Field(
        default=0.5, alias="DRIFT_PSI_HIGH", gt=0, le=10, description="PSI that opens one of high priority."
    )
    target_drift_threshold: float = Field(
        default=0.5, alias="TARGET_DRIFT_THRESHOLD", gt=0, le=100, description="Relative change of the fraud rate."
    )
    concept_drift_threshold: float = Field(
        default=0.05, alias="CONCEPT_DRIFT_THRESHOLD", gt=0, le=1, description="Fall of recall that cannot wait."
    )

    retention_runs_days: int = Field(
        default=KEEPING.runs_days,
        alias="RETENTION_RUNS_DAYS",
        ge=LEAST_RUNS_DAYS,
        le=3650,
        description="Days for which runs of timers and notices that have ended are kept.",
    )
    retention_figures_days: int = Field(
        default=KEEPING.figures_days,
        alias="RETENTION_FIGURES_DAYS",
        ge=LEAST_FIGURES_DAYS,
        le=3650,
        description="Days for which numbers on drift, data quality and performance are kept.",
    )
    retention_letters_days: int = Field(
        default=KEEPING.letters_days,
        alias="RETENTION_LETTERS_DAYS",
        ge=TAKEN_DAYS,
        le=3650,
        description="Days for which dead letters are kept that nobody handed in again.",
    )
    retention_shadow_days: int = Field(
        default=KEEPING.shadow_days,
        alias="RETENTION_SHADOW_DAYS",
        ge=LEAST_SHADOW_DAYS,
        le=3650,
        description="Days, by event time, for which scores of models are kept that did not decide.",
    )

    @property
    def keeping(self) -> Keeping:
        """How long rows are kept."""
        return Keeping(
            self.retention_runs_days,
            self.retention_figures_days,
            self.retention_letters_days,
            self.retention_shadow_days,
        )

    @model_validator(mode="after")
    def _grades(self) -> Self:
        if not self.drift_psi_floor <= self.drift_psi_medium <= self.drift_psi_high:
            raise ValueError("DRIFT_PSI_FLOOR, DRIFT_PSI_MEDIUM and DRIFT_PSI_HIGH must rise")
        return self


class RetrainSettings(CostSettings):
    """The retrain app."""

    models_container: str = Field(
        default="models", alias="MODELS_CONTAINER", pattern=CONTAINER_PATTERN, description="Model bundles and pointers."
    )

    mlflow_tracking_uri: str = Field(
        default="",
        alias="MLFLOW_TRACKING_URI",
        pattern=r"^(https?://.+)?$",
        description="Address of the MLflow server that trainings are recorded in; empty for none.",
    )
    reports_container: str = Field(
        default="reports", alias="REPORTS_CONTAINER", pattern=CONTAINER_PATTERN, description="Pages of verdicts."
    )
    daily_training_schedule: str = Field(
        alias="DAILY_TRAINING_SCHEDULE",
        min_length=9,
        description="When the day's training is due: six fields, seconds first, UTC.",
    )
    trigger_poll_schedule: str = Field(
        alias="TRIGGER_POLL_SCHEDULE",
        min_length=9,
        description="When triggers are looked for: six fields, seconds first, UTC.",
    )
    model_name: str = Field(
        default="card-fraud",
        alias="MODEL_NAME",
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$",
        description="Name of the model that is trained.",
    )
    feature_view: str = Field(
        default="",
        alias="FEATURE_VIEW",
        pattern=rf"^({'|'.join(VIEWS)})?$",
        description="Feature view that is trained; empty for the champion's, or card-v1 while there is none.",
    )
    cooldown_h: float = Field(
        default=48, alias="COOLDOWN_H", ge=0, le=8760, description="Hours from one training to the next."
    )
    min_new_transactions: int = Field(
        default=10_000,
        alias="MIN_NEW_TRANSACTIONS",
        ge=0,
        description="Transactions that must have matured since the last training's data.",
    )
    train_days: int = Field(default=75, alias="TRAIN_DAYS", ge=1, le=730, description="Days to learn from, at most.")
    validation_days: int = Field(
        default=7, alias="VALIDATION_DAYS", ge=1, le=90, description="Days to stop growing by and to choose on."
    )
    calibration_days: int = Field(
        default=14, alias="CALIBRATION_DAYS", ge=1, le=90, description="Days to calibrate on."
    )
    test_days: int = Field(default=14, alias="TEST_DAYS", ge=1, le=90, description="Days to test on.")
    maturity_days: int = Field(
        default=30, alias="MATURITY_DAYS", ge=0, le=365, description="Age from which on a verdict is final, days."
    )
    search_trials: int = Field(
        default=4, alias="SEARCH_TRIALS", ge=1, le=100, description="Parameters that are tried; 1 for no search."
    )
    search_s: float = Field(
        default=120, alias="SEARCH_S", ge=0, le=3600, description="After how long no other trial begins, seconds."
    )
    training_limit_s: float = Field(
        default=6600,
        alias="TRAINING_LIMIT_S",
        gt=0,
        le=7000,
        description="After how long a training is given up, seconds; less than the host's function timeout.",
    )
    min_recall: float = Field(default=0.80, alias="MIN_RECALL", ge=0, le=1, description="The gate's floor of recall.")
    min_precision: float = Field(
        default=0.75, alias="MIN_PRECISION", ge=0, le=1, description="The gate's floor of precision."
    )
    trial_h: float = Field(
        default=24,
        alias="TRIAL_H",
        ge=0,
        le=8760,
        description="Hours that a challenger scores in shadow before it is promoted; 0 to promote at once.",
    )
    trial_rows: int = Field(
        default=1_000, alias="TRIAL_ROWS", ge=0, description="Decisions that it must have scored by then."
    )


def _missing_connections(connections: tuple[str, ...], environment: Mapping[str, str]) -> list[str]:
    return [
        f"{name} or {name}__<property> must be set (a connection)"
        for name in connections
        if not environment.get(name) and not any(key.startswith(f"{name}__") for key in environment)
    ]


def _near_misses(names: set[str], environment: Mapping[str, str]) -> list[str]:
    """A misspelt setting is silently replaced by its default; name it. Only a look at close names can tell one."""
    found = []
    for key in sorted(environment):
        plain = key.split("__", 1)[0]
        if plain in names or plain.startswith(("FUNCTIONS_", "AzureWebJobs", "AZURE_FUNCTIONS_")):
            continue
        close = get_close_matches(plain.upper(), [name for name in names if name.isupper()], n=1, cutoff=0.88)
        found += [f"{key} is not a setting; is {name} meant?" for name in close]
    return found


def _sentence(name: str, message: str) -> str:
    if not name:  # a rule over several settings, which names them itself
        return message.removeprefix("Value error, ")
    return f"{name}: {message[:1].lower()}{message[1:]}"
