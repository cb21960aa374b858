"""Who may do what: the roles of the apps and their exact rights, as a table, and how a database is brought to it.

The roles cannot log in; users of the apps are members of them. Rights are given for tables and, where statements
change only some columns, for columns. Nobody but the owner may change or delete what is in `log_blocks` or
`predictions`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg import sql

from shared.adapters.postgres_readiness import SCHEMA

if TYPE_CHECKING:
    from psycopg import Connection


class Role(StrEnum):
    """Group roles; each belongs to an app or a task."""

    SCORE = "tollgate_score"
    INGEST = "tollgate_ingest"
    DRIFT = "tollgate_drift"
    RETRAIN = "tollgate_retrain"
    READER = "tollgate_reader"
    FORGET = "tollgate_forget"
    BACKFILL = "tollgate_backfill"


class Right(NamedTuple):
    """One right.

    Attributes:
        role: Who has it.
        kind: `schema`, `table` (views too) or `function`.
        item: The table's or function's name; empty for the schema.
        column: A column of the table; empty for all of it.
        privilege: As Postgres names it, such as `SELECT`.
    """

    role: str
    kind: str
    item: str
    column: str
    privilege: str


_STATE: Final = {
    "entity_tiles": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    # Rows that were made for a repeat under another customer are taken away again, hence DELETE.
    "customer_features": ("SELECT", "INSERT", "DELETE", "UPDATE(version, header, surrogate)"),
    "merchant_features": ("SELECT", "INSERT", "DELETE", "UPDATE(version, header, surrogate)"),
}
_CLAIM: Final = (
    "SELECT",
    "INSERT",
    "UPDATE(digest, event_time_us, customer_id, terminal_id, labelled)",
)
_DECIDE: Final = {
    **_STATE,
    "transaction_ids": _CLAIM,
    "transactions": ("INSERT",),
    "predictions": ("SELECT", "INSERT"),
    "log_blocks": ("INSERT",),
    "outbox": ("SELECT", "INSERT", "DELETE"),
    "feature_views": ("SELECT",),
}
_VERSIONS: Final = "UPDATE(customer_version, terminal_version)"
_EVERYBODY: Final = {"alembic_version": ("SELECT",)}
_PIPELINES: Final = {
    "pipeline_execution_log": ("SELECT", "INSERT", "UPDATE(status, ended_at_us, error, details)"),
    "task_metrics": ("SELECT", "INSERT"),
}
_COUNTS: Final = {"app_meters": ("SELECT", "INSERT", "UPDATE(cells, updated_at_us)")}
_TELL: Final = ("SELECT", "INSERT")
"""Of who leaves notifications for the drift app to send."""

TABLES: Final[dict[Role, dict[str, tuple[str, ...]]]] = {
    Role.SCORE: {**_EVERYBODY, **_DECIDE, **_COUNTS, "feedback_labels": ("SELECT", _VERSIONS)},
    Role.INGEST: {
        **_EVERYBODY,
        **_DECIDE,
        **_COUNTS,
        **_PIPELINES,
        "feedback_labels": ("SELECT", "INSERT", _VERSIONS),
        "dead_letters": ("SELECT", "INSERT", "UPDATE(replayed_at_us)"),
    },
    Role.DRIFT: {
        **_EVERYBODY,
        **dict.fromkeys(
            (
                "transactions",
                "predictions",
                "feedback_labels",
                "log_blocks",
                "outbox",
                "promotions",
                "promotion_verdicts",
            ),
            ("SELECT",),
        ),
        **dict.fromkeys(("log_seals", "retraining_triggers"), ("SELECT", "INSERT")),
        # What has expired is deleted by it, hence DELETE here and below.
        **dict.fromkeys(("dead_letters", "shadow_scores", "announced_changes"), ("SELECT", "DELETE")),
        **dict.fromkeys(("drift_metrics", "data_quality_log", "performance_metrics"), ("SELECT", "INSERT", "DELETE")),
        # How late labels are is told from when their transactions happened.
        "transaction_ids": ("SELECT(transaction_id, event_time_us)",),
        **{table: (*rights, "DELETE") for table, rights in _PIPELINES.items()},
        "tallies": ("SELECT", "INSERT", "UPDATE(count, until_id)"),
        # It adds up the counts of instances that are gone.
        "app_meters": ("SELECT", "INSERT", "UPDATE(cells, updated_at_us)", "DELETE"),
        "notifications": (*_TELL, "UPDATE(status, attempts, error, next_at_us, ended_at_us)", "DELETE"),
    },
    Role.RETRAIN: {
        **_EVERYBODY,
        **dict.fromkeys(("transactions", "predictions", "feedback_labels"), ("SELECT",)),
        "retraining_triggers": (
            "SELECT",
            "INSERT",
            "UPDATE(status, claimed_by, claimed_at_us, closed_at_us, outcome)",
        ),
        "model_versions": ("SELECT", "INSERT", "UPDATE(status, metrics)"),
        **dict.fromkeys(("promotions", "promotion_verdicts", "shadow_scores"), ("SELECT", "INSERT")),
        "registry_outbox": ("SELECT", "INSERT", "UPDATE(attempts, error, next_at_us)", "DELETE"),
        "notifications": _TELL,
        **_PIPELINES,
        "leases": ("SELECT", "INSERT", "UPDATE", "DELETE"),
        "feature_views": ("SELECT", "INSERT"),
    },
    Role.READER: {
        **_EVERYBODY,
        # Salts are secrets: with one and the key a surrogate can be recomputed.
        "customer_features": ("SELECT(customer_id, version, header, surrogate)",),
        **dict.fromkeys(
            (
                "transaction_ids",
                "transactions",
                "predictions",
                "merchant_features",
                "entity_tiles",
                "feedback_labels",
                "log_blocks",
                "log_seals",
                "outbox",
                "dead_letters",
                "forgotten",
                "deployments",
                "drift_metrics",
                "retraining_triggers",
                "model_versions",
                "task_metrics",
                "data_quality_log",
                "pipeline_execution_log",
                "promotions",
                "promotion_verdicts",
                "leases",
                "shadow_scores",
                "registry_outbox",
                "notifications",
                "announced_changes",
                "app_meters",
                "feature_views",
                "performance_metrics",
                "tallies",
                "v_transactions",
                "v_predictions",
            ),
            ("SELECT",),
        ),
    },
    Role.FORGET: {
        **_EVERYBODY,
        "entity_tiles": ("SELECT", "DELETE"),
        "customer_features": ("SELECT", "DELETE", "UPDATE(surrogate)"),  # changed in no column: it is locked for that
        "transaction_ids": ("SELECT", "UPDATE(digest, customer_id)"),
        "transactions": ("SELECT", "UPDATE(customer_id)"),
        "feedback_labels": ("SELECT", "UPDATE(label_digest, author)"),
        "dead_letters": ("SELECT", "UPDATE(body)"),  # bodies name customers
        "forgotten": ("SELECT", "INSERT"),
    },
    Role.BACKFILL: {
        **_EVERYBODY,
        "feature_views": (
            "SELECT",
            "INSERT",
            "UPDATE(status, entity, entity_key, entities, transactions, updated_at_us, completed_at_us)",
        ),
        "customer_features": ("SELECT(customer_id, version, header)", "UPDATE(header)"),
        "merchant_features": ("SELECT(terminal_id, version, header)", "UPDATE(header)"),
        "entity_tiles": ("SELECT", "INSERT", "UPDATE(version, data)", "DELETE"),
        "transactions": ("SELECT(transaction_id, customer_id, terminal_id, event_time_us, amount_minor)",),
        "feedback_labels": ("SELECT",),
    },
}
"""Rights on tables and views: `PRIVILEGE` or `PRIVILEGE(columns)`."""

FUNCTIONS: Final[dict[Role, tuple[str, ...]]] = {Role.DRIFT: ("make_partitions",)}
"""Functions that not everybody may call."""

_HELD: Final = """
WITH role AS (SELECT oid, rolname FROM pg_roles WHERE rolname = ANY(%(roles)s))
SELECT role.rolname, 'schema', '', '', right_.privilege_type
FROM pg_namespace n, aclexplode(n.nspacl) AS right_ JOIN role ON role.oid = right_.grantee
WHERE n.nspname = %(schema)s
UNION ALL
SELECT role.rolname, 'table', c.relname, '', right_.privilege_type
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = %(schema)s,
    aclexplode(c.relacl) AS right_ JOIN role ON role.oid = right_.grantee
UNION ALL
SELECT role.rolname, 'table', c.relname, a.attname, right_.privilege_type
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = %(schema)s
JOIN pg_attribute a ON a.attrelid = c.oid,
    aclexplode(a.attacl) AS right_ JOIN role ON role.oid = right_.grantee
UNION ALL
SELECT role.rolname, 'function', p.proname, '', right_.privilege_type
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname = %(schema)s,
    aclexplode(p.proacl) AS right_ JOIN role ON role.oid = right_.grantee
"""

_LOCK: Final = 0x746F6C6C6772616E
"""Key of the advisory lock of the one who grants ("tollgran" in ASCII)."""


class Changes(NamedTuple):
    """What was changed: rights that were given and rights that were taken away."""

    given: list[Right]
    taken: list[Right]


def wanted() -> set[Right]:
    """Every right that the roles are to have, and no other."""
    rights = {Right(role, "schema", "", "", "USAGE") for role in Role}
    for role, tables in TABLES.items():
        for table, privileges in tables.items():
            for text in privileges:
                privilege, _, columns = text.removesuffix(")").partition("(")
                names = columns.split(", ") if columns else [""]
                rights |= {Right(role, "table", table, name, privilege) for name in names}
    for role, functions in FUNCTIONS.items():
        rights |= {Right(role, "function", name, "", "EXECUTE") for name in functions}
    return rights


def held(connection: Connection[Any]) -> set[Right]:
    """Every right that the roles have in the schema, by whatever way it was given."""
    rows = connection.execute(_HELD, {"roles": [str(role) for role in Role], "schema": SCHEMA})
    return {Right(*row) for row in rows}


def apply(connection: Connection[Any]) -> Changes:
    """Make roles that are missing, then give and take what differs. Idempotent; in the connection's transaction.

    Raises:
        psycopg.errors.InsufficientPrivilege: The login owns neither the tables nor the right to make roles.
        psycopg.errors.UndefinedTable: The schema is not at this release's revision.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    known = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
    for role in Role:
        if role not in known:
            _make(connection, role)
    has, want = held(connection), wanted()
    changes = Changes(sorted(want - has), sorted(has - want))
    for right in changes.taken:
        connection.execute(_statement("REVOKE {} ON {} FROM {}", right))
    for right in changes.given:
        connection.execute(_statement("GRANT {} ON {} TO {}", right))
    return changes


def join(connection: Connection[Any], login: str, group: str) -> bool:
    """Make a login a member of one group and of no other; returns whether anything had to change.

    Raises:
        psycopg.errors.UndefinedObject: There is no such login or group.
        psycopg.errors.InsufficientPrivilege: The caller may not give the group away.
    """
    rows = connection.execute(
        "SELECT g.rolname FROM pg_auth_members m"
        " JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles l ON l.oid = m.member WHERE l.rolname = %s",
        [login],
    )
    groups = {str(row[0]) for row in rows}
    for other in sorted(groups - {group}):
        connection.execute(sql.SQL("REVOKE {} FROM {}").format(sql.Identifier(other), sql.Identifier(login)))
    if group not in groups:
        connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(login)))
    return groups != {group}


def _make(connection: Connection[Any], role: Role) -> None:
    """Make a role. Roles belong to the server, the lock to the database: another database's caller may be faster."""
    connection.execute(
        sql.SQL(
            "DO $$ BEGIN CREATE ROLE {} NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        ).format(sql.Identifier(role))
    )


def _statement(text: str, right: Right) -> sql.Composed:
    privilege: sql.Composable = sql.SQL(right.privilege)
    if right.column:
        privilege = sql.SQL("{} ({})").format(privilege, sql.Identifier(right.column))
    return sql.SQL(text).format(privilege, _item(right), sql.Identifier(right.role))


def _item(right: Right) -> sql.Composable:
    if right.kind == "schema":
        return sql.SQL("SCHEMA {}").format(sql.Identifier(SCHEMA))
    return sql.SQL(right.kind.upper() + " {}").format(sql.Identifier(SCHEMA, right.item))
