"""Every table of the schema as SQLAlchemy metadata: what the migrations have to add up to.

The metadata tells people and tools what the schema is; databases are made by the modules in
`versions` alone, and a test compares both on a real server. Conventions:

* keys and identifiers are `text COLLATE "C"`, so that Postgres and Python sort alike, and so lock alike;
* times are `bigint` microseconds since 1970 UTC in columns named `*_us`: exact, without a time zone to get wrong;
* small codes are `smallint`; the sequences that they index only ever grow at their end.

Fill factors and settings of vacuum are in `STORAGE`, because SQLAlchemy has no place for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from shared.adapters.postgres_readiness import SCHEMA

METADATA: Final = MetaData(
    schema=SCHEMA,
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    },
)

DIGEST_BYTES: Final = 32
"""Length of SHA-256."""

_US: Final = "microseconds since 1970 UTC"


def _key(name: str, comment: str | None = None, *, nullable: bool = False) -> Column[Any]:
    return Column(name, Text(collation="C"), nullable=nullable, comment=comment)


def _text(name: str, comment: str | None = None, *, nullable: bool = False) -> Column[Any]:
    return Column(name, Text, nullable=nullable, comment=comment)


def _us(name: str, comment: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, BigInteger, nullable=nullable, comment=f"{comment}, {_US}")


def _big(name: str, comment: str | None = None, *, nullable: bool = False) -> Column[Any]:
    return Column(name, BigInteger, nullable=nullable, comment=comment)


def _small(name: str, comment: str) -> Column[Any]:
    return Column(name, SmallInteger, nullable=False, comment=comment)


def _bytes(name: str, comment: str | None = None, *, nullable: bool = False) -> Column[Any]:
    return Column(name, LargeBinary, nullable=nullable, comment=comment)


def _real(name: str, comment: str | None = None, *, nullable: bool = False) -> Column[Any]:
    return Column(name, Double, nullable=nullable, comment=comment)


def _json(name: str, comment: str) -> Column[Any]:
    return Column(name, JSONB, nullable=False, server_default=text("'{}'::jsonb"), comment=comment)


def _id(name: str) -> Column[Any]:
    return Column(name, BigInteger, Identity(always=True), nullable=False)


def _digest(column: str) -> CheckConstraint:
    return CheckConstraint(f"octet_length({column}) = {DIGEST_BYTES}", name=column)


def _check(name: str, condition: str) -> CheckConstraint:
    return CheckConstraint(condition, name=name)


TRANSACTION_IDS: Final = Table(
    "transaction_ids",
    METADATA,
    _key("transaction_id"),
    _bytes(
        "digest",
        "SHA-256 of the canonical body; null while only a label named the id; zero once forgotten",
        nullable=True,
    ),
    _us("event_time_us", "when the transaction happened", nullable=True),
    _key("customer_id", nullable=True),
    _key("terminal_id", nullable=True),
    Column("labelled", Boolean, nullable=False, server_default=false(), comment="whether labels wait for this id"),
    PrimaryKeyConstraint("transaction_id"),
    _digest("digest"),
    _check(
        "placeholder", "digest IS NOT NULL OR (event_time_us IS NULL AND customer_id IS NULL AND terminal_id IS NULL)"
    ),
    postgresql_partition_by="HASH (transaction_id)",
    comment="Ids that were claimed: what makes effects happen once, whatever the event time",
)

TRANSACTIONS: Final = Table(
    "transactions",
    METADATA,
    _key("customer_id"),
    _us("event_time_us", "when it happened"),
    _key("transaction_id"),
    _key("terminal_id"),
    _big("amount_minor", "in minor units of the currency"),
    _text("currency", "ISO 4217"),
    _big("customer_version", "version of the customer's state that it created"),
    _big("terminal_version", "version of the terminal's state that it created"),
    _us("recorded_at_us", "when it was committed, by our clock"),
    _small("flags", "bit 0: too late for the customer's state, bit 1: for the terminal's"),
    PrimaryKeyConstraint("customer_id", "event_time_us", "transaction_id"),
    _check("amount", "amount_minor > 0"),
    _check("currency", "length(currency) = 3"),
    _check("versions", "customer_version >= 0 AND terminal_version >= 0"),
    _check("flags", "flags BETWEEN 0 AND 3"),
    Index(None, "recorded_at_us", postgresql_using="brin"),
    postgresql_partition_by="RANGE (event_time_us)",
    comment="Raw transactions, from which every feature can be computed again",
)

PREDICTIONS: Final = Table(
    "predictions",
    METADATA,
    _key("transaction_id"),
    _us("event_time_us", "when the transaction happened"),
    _bytes("record", "canonical bytes of the decision, the authority"),
    _small("outcome", "0 approve, 1 review, 2 decline"),
    _real("score", "calibrated probability"),
    _text("bundle_digest", "the model bundle that decided, 64 hexadecimal digits"),
    _key("log_writer"),
    _big("log_sequence", "the block of that writer"),
    Column("log_leaf", Integer, nullable=False, comment="the leaf of that block, from 0"),
    _us("recorded_at_us", "when it was committed, by our clock"),
    PrimaryKeyConstraint("transaction_id", "event_time_us"),
    _check("outcome", "outcome BETWEEN 0 AND 2"),
    _check("score", "score >= 0 AND score <= 1"),
    _check("bundle_digest", "length(bundle_digest) = 64"),
    _check("place", "log_sequence >= 0 AND log_leaf >= 0"),
    Index(None, "recorded_at_us", postgresql_using="brin"),
    postgresql_partition_by="RANGE (event_time_us)",
    comment="Decisions, one per transaction that was decided",
)

CUSTOMER_FEATURES: Final = Table(
    "customer_features",
    METADATA,
    _key("customer_id"),
    Column("version", BigInteger, nullable=False, server_default=text("0"), comment="events and labels folded so far"),
    _bytes("header", "header of the entity state; null until something was folded", nullable=True),
    _bytes("salt", "secret: with it the surrogate can be recomputed, so forgetting deletes it"),
    _text("surrogate", "how the log names the customer; null until something was folded", nullable=True),
    PrimaryKeyConstraint("customer_id"),
    _check("version", "version >= 0"),
    comment="The row of a customer that is locked while deciding",
)

MERCHANT_FEATURES: Final = Table(
    "merchant_features",
    METADATA,
    _key("terminal_id"),
    Column("version", BigInteger, nullable=False, server_default=text("0"), comment="events and labels folded so far"),
    _bytes("header", "header of the entity state; null until something was folded", nullable=True),
    _text("surrogate", "how the log names the terminal; null until something was folded", nullable=True),
    PrimaryKeyConstraint("terminal_id"),
    _check("version", "version >= 0"),
    comment="The row of a terminal that is locked while deciding",
)

ENTITY_TILES: Final = Table(
    "entity_tiles",
    METADATA,
    _small("entity", "0 customer, 1 terminal"),
    _key("entity_key"),
    _us("start_us", "start of the tile's range of event time"),
    _big("version", "version of the entity that wrote the tile last"),
    _bytes("data", "the tile"),
    PrimaryKeyConstraint("entity", "entity_key", "start_us"),
    _check("entity", "entity BETWEEN 0 AND 1"),
    _check("version", "version >= 0"),
    comment="State of customers and terminals in ranges of event time",
)

FEEDBACK_LABELS: Final = Table(
    "feedback_labels",
    METADATA,
    _key("transaction_id"),
    _bytes("label_digest", "SHA-256 of the label's canonical bytes"),
    _small("verdict", "place in shared.domain.labels.Verdict"),
    _small("source", "place in shared.domain.labels.PRECEDENCE"),
    _us("event_time_us", "when what the label reports happened"),
    _us("known_at_us", "when it became known to its source"),
    _small("confidence", "percent"),
    _text("author"),
    _us("recorded_at_us", "when it was committed, by our clock"),
    _big("customer_version", "version of the customer that it created; null: waits for its transaction", nullable=True),
    _big("terminal_version", "version of the terminal that it created; null: waits for its transaction", nullable=True),
    PrimaryKeyConstraint("transaction_id", "label_digest"),
    _digest("label_digest"),
    _check("codes", "verdict >= 0 AND source >= 0"),
    _check("confidence", "confidence BETWEEN 0 AND 100"),
    _check(
        "versions",
        "(customer_version IS NULL) = (terminal_version IS NULL)"
        " AND coalesce(customer_version, 0) >= 0 AND coalesce(terminal_version, 0) >= 0",
    ),
    Index(None, "recorded_at_us", postgresql_using="brin"),
    comment="What became known of transactions, each label once",
)

LOG_BLOCKS: Final = Table(
    "log_blocks",
    METADATA,
    _key("writer"),
    _big("sequence", "place in the writer's chain"),
    _bytes("previous", "hash of the writer's block before"),
    _bytes("root", "Merkle root over the leaves"),
    Column("count", Integer, nullable=False, comment="number of leaves"),
    _bytes("leaves", "the leaves' hashes, one after the other"),
    _bytes("hash", "hash of this block"),
    _us("recorded_at_us", "when it was committed, by our clock"),
    PrimaryKeyConstraint("writer", "sequence"),
    _check("sequence", "sequence >= 0"),
    _digest("previous"),
    _digest("root"),
    _digest("hash"),
    _check("leaves", f"count > 0 AND octet_length(leaves) = {DIGEST_BYTES} * count"),
    Index(None, "recorded_at_us", postgresql_using="brin"),
    comment="The decision log: one block per commit, a chain per writer; nobody may change or delete a row",
)

LOG_SEALS: Final = Table(
    "log_seals",
    METADATA,
    Column("seal_id", BigInteger, Identity(always=False), nullable=False, comment="number of the seal's blob"),
    _us("sealed_at_us", "when it was made, by our clock"),
    _bytes("previous", "hash of the seal before"),
    _bytes("hash", "hash of this seal"),
    _bytes("heads", "canonical bytes of the writers' heads"),
    PrimaryKeyConstraint("seal_id"),
    _digest("previous"),
    _digest("hash"),
    comment="Mirror of the seals in Blob, which are the authority",
)

OUTBOX: Final = Table(
    "outbox",
    METADATA,
    _id("outbox_id"),
    _key("transaction_id"),
    _us("event_time_us", "when the transaction happened"),
    _us("recorded_at_us", "when the decision was committed, by our clock"),
    PrimaryKeyConstraint("outbox_id"),
    comment="Decisions that have not left yet",
)

DEAD_LETTERS: Final = Table(
    "dead_letters",
    METADATA,
    _id("dead_letter_id"),
    _text("source", "the hub, or another way in"),
    _text("partition_id"),
    _text("event_offset"),
    _text("reason"),
    _text("field", nullable=True),
    _text("rule", nullable=True),
    _bytes("body", "as it came"),
    _us("received_at_us", "when it was set aside, by our clock"),
    _us("replayed_at_us", "when it was handed in again", nullable=True),
    PrimaryKeyConstraint("dead_letter_id"),
    UniqueConstraint("source", "partition_id", "event_offset"),
    Index(None, "received_at_us", postgresql_where=text("replayed_at_us IS NULL")),
    Index(None, "replayed_at_us", postgresql_where=text("replayed_at_us IS NOT NULL")),
    comment="Input that no retry can make usable; the authority, of which Blob holds copies",
)

FORGOTTEN: Final = Table(
    "forgotten",
    METADATA,
    _key("surrogate", "how the log named the customer; the identifier itself is kept nowhere"),
    _us("forgotten_at_us", "when, by our clock"),
    _text("reason"),
    PrimaryKeyConstraint("surrogate"),
    comment="Customers who were forgotten",
)

DEPLOYMENTS: Final = Table(
    "deployments",
    METADATA,
    _id("deployment_id"),
    _text("app"),
    _text("version"),
    _text("schema_revision"),
    _us("deployed_at_us", "when, by our clock"),
    _json("details", "digests, commit, who"),
    PrimaryKeyConstraint("deployment_id"),
    comment="What was deployed when",
)

DRIFT_METRICS: Final = Table(
    "drift_metrics",
    METADATA,
    _id("metric_id"),
    _text("bundle_digest", "the bundle whose reference window was compared with"),
    _text("subject", "a feature, or the score, the outcome, the label"),
    _text("statistic", "psi, ks, js, ..."),
    _real("value", "null where the window was too small to tell", nullable=True),
    _us("window_start_us", "start of the current window"),
    _us("window_end_us", "its end, not included"),
    _big("reference_rows"),
    _big("current_rows"),
    _json("details", "bins, significance, grade"),
    _us("recorded_at_us", "when it was computed, by our clock"),
    PrimaryKeyConstraint("metric_id"),
    UniqueConstraint("bundle_digest", "subject", "statistic", "window_start_us", "window_end_us"),
    Index(None, "recorded_at_us"),
    _check("window", "window_start_us < window_end_us"),
    _check("rows", "reference_rows >= 0 AND current_rows >= 0"),
    comment="Drift statistics: numbers; what follows from them is policy",
)

RETRAINING_TRIGGERS: Final = Table(
    "retraining_triggers",
    METADATA,
    _id("trigger_id"),
    _text("cause", "concept drift, feature drift, schedule, person, ..."),
    _small("priority", "0 immediate, 1 high, 2 medium, 3 low"),
    Column("status", Text, nullable=False, server_default=text("'open'")),
    _json("evidence", "the statistics that led to it"),
    _us("created_at_us", "when, by our clock"),
    _text("claimed_by", "the run that took it", nullable=True),
    _us("claimed_at_us", "when it was taken", nullable=True),
    _us("closed_at_us", "when it was done or dismissed", nullable=True),
    _text("outcome", "what came of it", nullable=True),
    Column(
        "subject",
        Text,
        nullable=False,
        server_default=text("''"),
        comment="a feature, score, outcome; empty where the cause says all",
    ),
    PrimaryKeyConstraint("trigger_id"),
    _check("priority", "priority BETWEEN 0 AND 3"),
    _check("status", "status IN ('open', 'claimed', 'done', 'dismissed')"),
    _check("claim", "(claimed_by IS NULL) = (claimed_at_us IS NULL)"),
    _check("closed", "(closed_at_us IS NOT NULL) = (status IN ('done', 'dismissed'))"),
    Index(None, "priority", "created_at_us", postgresql_where=text("status = 'open'")),
    Index(
        "uq_retraining_triggers_open",
        "cause",
        "subject",
        unique=True,
        postgresql_where=text("status IN ('open', 'claimed')"),
    ),
    comment="Reasons to retrain, taken in order of priority and age",
)

MODEL_VERSIONS: Final = Table(
    "model_versions",
    METADATA,
    _key("bundle_digest", "SHA-256 of the bundle's manifest, 64 hexadecimal digits"),
    _text("name"),
    _big("version", "rises with each training of that name"),
    _text("feature_view"),
    _text("status"),
    _json("metrics", "with confidence intervals, as in the manifest"),
    _us("trained_from_us", "start of the training window"),
    _us("trained_until_us", "its end, not included"),
    _us("registered_at_us", "when, by our clock"),
    PrimaryKeyConstraint("bundle_digest"),
    UniqueConstraint("name", "version"),
    _check("bundle_digest", "length(bundle_digest) = 64"),
    _check("version", "version > 0"),
    _check("window", "trained_from_us < trained_until_us"),
    _check("status", "status IN ('candidate', 'shadow', 'challenger', 'champion', 'retired', 'refused')"),
    comment="Model bundles that were ever registered; bundles and pointers lie in Blob",
)

TASK_METRICS: Final = Table(
    "task_metrics",
    METADATA,
    _key("run_id"),
    _text("task"),
    _text("metric"),
    _real("value"),
    _us("recorded_at_us", "when it was measured, by our clock"),
    PrimaryKeyConstraint("run_id", "task", "metric"),
    comment="What tasks of a pipeline run measured",
)

DATA_QUALITY_LOG: Final = Table(
    "data_quality_log",
    METADATA,
    _id("check_id"),
    _text("source"),
    _text("rule"),
    Column("passed", Boolean, nullable=False),
    _real("observed", nullable=True),
    _us("window_start_us", "start of what was checked"),
    _us("window_end_us", "its end, not included"),
    _json("details", "examples without identifiers"),
    _us("recorded_at_us", "when it was checked, by our clock"),
    PrimaryKeyConstraint("check_id"),
    UniqueConstraint("source", "rule", "window_start_us", "window_end_us"),
    Index(None, "recorded_at_us"),
    _check("window", "window_start_us < window_end_us"),
    comment="Checks of data quality and what they found",
)

PIPELINE_EXECUTION_LOG: Final = Table(
    "pipeline_execution_log",
    METADATA,
    _key("run_id"),
    _text("pipeline"),
    Column("status", Text, nullable=False, server_default=text("'running'")),
    _us("started_at_us", "when, by our clock"),
    _us("ended_at_us", "when, by our clock", nullable=True),
    _text("error", nullable=True),
    _json("details", "parameters and results"),
    PrimaryKeyConstraint("run_id"),
    _check("status", "status IN ('running', 'done', 'failed', 'skipped')"),
    _check("ended", "(ended_at_us IS NULL) = (status = 'running')"),
    Index(None, "pipeline", "started_at_us", postgresql_include=["status"]),
    Index(None, "started_at_us"),
    comment="Runs of pipelines",
)

PROMOTIONS: Final = Table(
    "promotions",
    METADATA,
    _id("promotion_id"),
    _text("role", "champion, challenger, shadow"),
    _big("number", "number of the pointer's state, from 1 without gaps"),
    _key("bundle_digest", "who plays the part from then on; null for nobody", nullable=True),
    _text("action", "promote, accept, rollback, challenge, shadow, retire, adopt"),
    _text("author"),
    _text("reason"),
    _key("verdict_digest", "the verdict that led to it", nullable=True),
    _us("changed_at_us", "when, by our clock"),
    PrimaryKeyConstraint("promotion_id"),
    UniqueConstraint("role", "number"),
    _check("role", "role IN ('champion', 'challenger', 'shadow')"),
    _check("number", "number > 0"),
    _check("digests", "length(bundle_digest) = 64 AND length(verdict_digest) = 64"),
    comment="Every change of a role, append-only: who, when, why; pointers in Blob follow",
)

PROMOTION_VERDICTS: Final = Table(
    "promotion_verdicts",
    METADATA,
    _key("verdict_digest", "SHA-256 of the document, 64 hexadecimal digits"),
    _key("challenger_digest"),
    _key("champion_digest", nullable=True),
    Column("passed", Boolean, nullable=False),
    _text("document", "canonical JSON"),
    _key("run_id", "the pipeline run that asked", nullable=True),
    _us("decided_at_us", "when, by our clock"),
    PrimaryKeyConstraint("verdict_digest"),
    _check("digests", "length(verdict_digest) = 64"),
    comment="What the gate said of challengers",
)

LEASES: Final = Table(
    "leases",
    METADATA,
    _key("name"),
    _text("holder"),
    _us("acquired_at_us", "when, by our clock"),
    _us("expires_at_us", "until when unless renewed"),
    PrimaryKeyConstraint("name"),
    _check("span", "acquired_at_us < expires_at_us"),
    comment="Who alone may do something, until when; one that has expired may be taken over",
)

SHADOW_SCORES: Final = Table(
    "shadow_scores",
    METADATA,
    _key("bundle_digest"),
    _us("event_time_us", "of the transaction"),
    _key("transaction_id"),
    Column("raw", REAL, nullable=False, comment="the model's output before calibration"),
    _real("score"),
    _us("recorded_at_us", "when it was scored, by our clock"),
    PrimaryKeyConstraint("bundle_digest", "event_time_us", "transaction_id"),
    _check("score", "score >= 0 AND score <= 1"),
    comment="What models said that do not decide, from stored vectors",
)

REGISTRY_OUTBOX: Final = Table(
    "registry_outbox",
    METADATA,
    _id("entry_id"),
    _key("run_id"),
    Column("record", JSONB, nullable=False, comment="what the registry is to be told; files are named by their blob"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    _text("error", "why the last attempt failed", nullable=True),
    _us("created_at_us", "when, by our clock"),
    _us("next_at_us", "not to be tried before"),
    PrimaryKeyConstraint("entry_id"),
    UniqueConstraint("run_id"),
    _check("attempts", "attempts >= 0"),
    comment="Records of runs that the model registry does not have yet",
)

NOTIFICATIONS: Final = Table(
    "notifications",
    METADATA,
    _id("notification_id"),
    _text("channel", "page, mail, slack, webhook"),
    _key("dedup_key", "the same key is told once"),
    _small("severity", "0 critical, 1 error, 2 warning, 3 information"),
    _text("title"),
    _json("evidence", "the numbers that led to it, without identifiers"),
    Column("link", Text, nullable=False, server_default=text("''")),
    Column(
        "status",
        Text,
        nullable=False,
        server_default=text("'waiting'"),
        comment="waiting, sent, withheld by the rate limit, failed for good",
    ),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    _text("error", nullable=True),
    _us("created_at_us", "when, by our clock"),
    _us("next_at_us", "not to be tried before"),
    _us("ended_at_us", "when it was sent or given up, by our clock", nullable=True),
    PrimaryKeyConstraint("notification_id"),
    UniqueConstraint("channel", "dedup_key"),
    _check("severity", "severity BETWEEN 0 AND 3"),
    _check("status", "status IN ('waiting', 'sent', 'withheld', 'failed')"),
    _check("ended", "(ended_at_us IS NULL) = (status = 'waiting')"),
    Index(None, "next_at_us", postgresql_where=text("status = 'waiting'")),
    Index(None, "ended_at_us", postgresql_include=["channel", "status"]),
    comment="What people are told, once for each channel and key",
)

ANNOUNCED_CHANGES: Final = Table(
    "announced_changes",
    METADATA,
    _id("change_id"),
    _text("subject", "a feature, score, outcome, volume, or * for all"),
    _us("start_us", "from this event time on"),
    _us("end_us", "until this event time, not included"),
    _text("author"),
    _text("reason"),
    _us("recorded_at_us", "when, by our clock"),
    PrimaryKeyConstraint("change_id"),
    _check("span", "start_us < end_us"),
    comment="Changes that people said would come: drift in them is no alarm",
)

APP_METERS: Final = Table(
    "app_meters",
    METADATA,
    _key("app"),
    _key("writer", "one instance since its start, or the sum of those that are gone"),
    _key("layout", "digest of what the cells mean"),
    Column("cells", ARRAY(Double), nullable=False, comment="counters and buckets by their place in the layout"),
    _us("started_at_us", "when the writer started, by our clock"),
    _us("updated_at_us", "when it wrote last, by our clock"),
    PrimaryKeyConstraint("app", "writer", "layout"),
    comment="Counts of every instance of an app, ever: the sum over writers only grows",
)

FEATURE_VIEWS: Final = Table(
    "feature_views",
    METADATA,
    _key("name"),
    _key("definition", "SHA-256 of the definition, 64 hexadecimal digits"),
    _text("status", "declared, filling, complete"),
    _big("customer_horizon_us", "how far behind its greatest event time a customer's state is kept, microseconds"),
    _big("terminal_horizon_us", "how far behind its greatest event time a terminal's state is kept, microseconds"),
    Column("entity", SmallInteger, comment="0 customer, 1 terminal: what is being filled; null before the first"),
    _key("entity_key", "the last entity that is done", nullable=True),
    Column("entities", BigInteger, nullable=False, server_default=text("0"), comment="entities looked at so far"),
    Column(
        "transactions",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="transactions put into their states so far",
    ),
    _us("declared_at_us", "when, by our clock"),
    _us("updated_at_us", "when, by our clock"),
    _us("completed_at_us", "when, by our clock", nullable=True),
    PrimaryKeyConstraint("name"),
    _check("definition", "length(definition) = 64"),
    _check("status", "status IN ('declared', 'filling', 'complete')"),
    _check("horizons", "customer_horizon_us >= 0 AND terminal_horizon_us >= 0"),
    _check("place", "(entity IS NULL) = (entity_key IS NULL) AND entity BETWEEN 0 AND 1"),
    _check("counts", "entities >= 0 AND transactions >= 0"),
    _check("completed", "(completed_at_us IS NOT NULL) = (status = 'complete')"),
    comment="Feature views that were asked for, and whether entity state reaches back for them",
)

PERFORMANCE_METRICS: Final = Table(
    "performance_metrics",
    METADATA,
    _id("metric_id"),
    _key("bundle_digest", "the model that decided, or scored in shadow"),
    _key("segment", "all, or a segment such as amount:high"),
    _key("metric"),
    _real("value", "null where there were too few to tell", nullable=True),
    _real("low", "lower end of the interval", nullable=True),
    _real("high", "upper end of the interval", nullable=True),
    Column("note", Text, nullable=False, server_default=text("''"), comment="why there is no value"),
    _big("n_rows"),
    _big("n_frauds"),
    _us("window_start_us", "first event time"),
    _us("window_end_us", "their end, not included"),
    _us("recorded_at_us", "when it was computed, by our clock"),
    PrimaryKeyConstraint("metric_id"),
    UniqueConstraint("bundle_digest", "segment", "metric", "window_start_us", "window_end_us"),
    Index(None, "recorded_at_us"),
    _check("window", "window_start_us < window_end_us"),
    _check("rows", "n_rows >= 0 AND n_frauds >= 0 AND n_frauds <= n_rows"),
    comment="What decisions were worth, by model and segment, on mature labels",
)

TALLIES: Final = Table(
    "tallies",
    METADATA,
    _text("subject", "dead letters, runs, replays"),
    Column(
        "labels", ARRAY(Text), nullable=False, comment="what is told apart: hub and field; pipeline and status; verdict"
    ),
    _big("count", "rows that need not be counted again, because they are gone or final"),
    Column(
        "until_id",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="of dead letters: rows up to the highest of these numbers are counted",
    ),
    PrimaryKeyConstraint("subject", "labels"),
    _check("count", "count >= 0"),
    comment="What was counted of rows that are read no more: counters never fall",
)

HASH_PARTITIONS: Final = 8
"""Of transaction_ids: enough that vacuum and index growth come in pieces, few enough that a claim touches them all."""

_HOT_ROWS: Final = {
    "fillfactor": "70",
    "autovacuum_vacuum_scale_factor": "0.02",
    "autovacuum_vacuum_cost_delay": "0",
}
_GROWING: Final = {"autovacuum_vacuum_insert_scale_factor": "0.05", "autovacuum_analyze_scale_factor": "0.02"}

STORAGE: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "customer_features": _HOT_ROWS,
        "merchant_features": _HOT_ROWS,
        "entity_tiles": {**_HOT_ROWS, "toast_tuple_target": "8160"},
        "outbox": {
            "autovacuum_vacuum_scale_factor": "0",
            "autovacuum_vacuum_threshold": "5000",
            "autovacuum_vacuum_cost_delay": "0",
        },
        "app_meters": {
            "fillfactor": "50",
            "autovacuum_vacuum_scale_factor": "0.02",
            "autovacuum_vacuum_cost_delay": "0",
        },
        "feedback_labels": _GROWING,
        "log_blocks": _GROWING,
        **{f"transaction_ids_h{number}": _GROWING for number in range(HASH_PARTITIONS)},
    }
)
"""Storage parameters of tables and partitions; the reasons are in docs/schema.md."""
