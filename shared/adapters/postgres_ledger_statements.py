"""Every statement of the ledger, the same for each way of sending it; columns travel as arrays, one statement a batch.

Order matters more than it looks (facts in docs/ledger.md):

* ids are claimed in sorted order, then missing entities are inserted in sorted order, then customers and after them
  terminals are locked in sorted order: two units that lock in one order cannot deadlock;
* tiles are read by a later statement than the one that locks: under READ COMMITTED each statement has its own
  snapshot, and a join in the locking one would return the new version with the tiles of an older moment;
* an entity's key is never updated, so `FOR NO KEY UPDATE` is enough.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from shared.domain.decision import STRICTNESS, Outcome
from shared.domain.feature_view import Entity
from shared.domain.labels import PRECEDENCE, LabelSource, Verdict


class Kind(StrEnum):
    """A type of Postgres that the ledger sends or reads."""

    BOOL = "bool"
    BYTES = "bytea"
    INT2 = "int2"
    INT4 = "int4"
    INT8 = "int8"
    FLOAT8 = "float8"
    TEXT = "text"


class Statement(NamedTuple):
    """A statement and the types on both its sides.

    Attributes:
        name: Under which it is prepared.
        sql: Its text, with numbered parameters.
        arrays: Types of the elements of its leading parameters, which are arrays of one length.
        scalars: Types of the parameters after them.
        columns: Types of what it returns.
        parts: The statements that it was merged from; their parameters follow one another.
    """

    name: str
    sql: str
    arrays: tuple[Kind, ...] = ()
    scalars: tuple[Kind, ...] = ()
    columns: tuple[Kind, ...] = ()
    parts: tuple[Statement, ...] = ()


ENTITY_CODES: Final = {entity: code for code, entity in enumerate((Entity.CUSTOMER, Entity.TERMINAL))}
OUTCOME_CODES: Final[dict[Outcome, int]] = {outcome: code for code, outcome in enumerate(STRICTNESS)}
VERDICTS: Final = tuple(Verdict)
VERDICT_CODES: Final[dict[Verdict, int]] = {verdict: code for code, verdict in enumerate(VERDICTS)}
SOURCE_CODES: Final[dict[LabelSource, int]] = {source: code for code, source in enumerate(PRECEDENCE)}
"""What the `smallint` columns hold: places in these sequences, which therefore only ever grow at their end."""

STRONGEST_FIRST: Final = (
    f"f.source DESC, f.known_at_us DESC, f.confidence DESC, f.verdict = {VERDICT_CODES[Verdict.FRAUD]} DESC"
)
"""The order of `feedback_labels f` by `Label.strength`: of several labels the first one holds."""

_B, _2, _4, _8, _F, _T = Kind.BYTES, Kind.INT2, Kind.INT4, Kind.INT8, Kind.FLOAT8, Kind.TEXT

BEGIN: Final = Statement("begin", "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
COMMIT: Final = Statement("commit", "COMMIT")
ROLLBACK: Final = Statement("rollback", "ROLLBACK")

CLAIM: Final = Statement(
    "claim",
    """
INSERT INTO tollgate.transaction_ids AS held (transaction_id, digest, event_time_us, customer_id, terminal_id)
SELECT id, digest, event_time_us, customer_id, terminal_id
FROM unnest($1::text[], $2::bytea[], $3::int8[], $4::text[], $5::text[])
    AS given(id, digest, event_time_us, customer_id, terminal_id)
ORDER BY id COLLATE "C"
ON CONFLICT (transaction_id) DO UPDATE SET digest = excluded.digest, event_time_us = excluded.event_time_us,
    customer_id = excluded.customer_id, terminal_id = excluded.terminal_id
WHERE held.digest IS NULL
RETURNING transaction_id, labelled
""",
    (_T, _B, _8, _T, _T),
    columns=(_T, Kind.BOOL),
)
"""Returns the ids that are this unit's, new or placeholders of labels; the rows of all others are locked as well."""

REPEATS: Final = Statement(
    "repeats",
    """
SELECT i.transaction_id, i.digest, i.event_time_us, p.record
FROM unnest($1::text[]) AS given(id)
JOIN tollgate.transaction_ids i ON i.transaction_id = given.id
LEFT JOIN LATERAL (
    SELECT record FROM tollgate.predictions
    WHERE transaction_id = i.transaction_id AND event_time_us = i.event_time_us
        AND event_time_us BETWEEN $2::int8 AND $3::int8
    LIMIT 1
) p ON true
""",
    (_T,),
    (_8, _8),
    columns=(_T, _B, _8, _B),
)
"""Looks for decisions in the partitions of a span of event times only: to open all of them, two years of weeks, takes
longer than everything else in the round. The limit keeps a plan that was made while tables were empty from reading the
whole span and joining afterwards."""

WAITING: Final = Statement(
    "waiting",
    """
SELECT transaction_id, label_digest, verdict, source, event_time_us, known_at_us, confidence, author
FROM tollgate.feedback_labels
WHERE transaction_id = ANY($1::text[]) AND customer_version IS NULL
""",
    (_T,),
    columns=(_T, _B, _2, _2, _8, _8, _2, _T),
)

NEW_CUSTOMERS: Final = Statement(
    "new_customers",
    """
INSERT INTO tollgate.customer_features (customer_id, salt)
SELECT key, salt FROM unnest($1::text[], $2::bytea[]) AS given(key, salt)
WHERE NOT EXISTS (SELECT FROM tollgate.customer_features held WHERE held.customer_id = given.key)
ORDER BY key COLLATE "C"
ON CONFLICT (customer_id) DO NOTHING
""",
    (_T, _B),
)

NEW_TERMINALS: Final = Statement(
    "new_terminals",
    """
INSERT INTO tollgate.merchant_features (terminal_id)
SELECT key FROM unnest($1::text[]) AS given(key)
WHERE NOT EXISTS (SELECT FROM tollgate.merchant_features held WHERE held.terminal_id = given.key)
ORDER BY key COLLATE "C"
ON CONFLICT (terminal_id) DO NOTHING
""",
    (_T,),
)

LAYOUT: Final = Statement(
    "layout",
    "SELECT name, customer_horizon_us, terminal_horizon_us FROM tollgate.feature_views",
    columns=(_T, _8, _8),
)
"""How far back state is kept beyond `BASE_LAYOUT`: a handful of rows, read only where an entity may be new."""

LOCK_CUSTOMERS: Final = Statement(
    "lock_customers",
    """
SELECT customer_id, version, header, surrogate, salt FROM tollgate.customer_features
WHERE customer_id = ANY($1::text[]) ORDER BY customer_id FOR NO KEY UPDATE
""",
    (_T,),
    columns=(_T, _8, _B, _T, _B),
)

LOCK_TERMINALS: Final = Statement(
    "lock_terminals",
    """
SELECT terminal_id, version, header, surrogate, ''::bytea FROM tollgate.merchant_features
WHERE terminal_id = ANY($1::text[]) ORDER BY terminal_id FOR NO KEY UPDATE
""",
    (_T,),
    columns=(_T, _8, _B, _T, _B),
)

TILES: Final = Statement(
    "tiles",
    """
SELECT given.place, t.data
FROM unnest($1::int2[], $2::text[], $3::int8[]) WITH ORDINALITY AS given(entity, key, version, place)
JOIN tollgate.entity_tiles t ON t.entity = given.entity AND t.entity_key = given.key AND t.version > given.version
""",
    (_2, _T, _8),
    columns=(_8, _B),
)
"""Returns tiles newer than a version, each with the place, from 1, of its entity among the parameters."""

WRITE_TRANSACTIONS: Final = Statement(
    "write_transactions",
    """
INSERT INTO tollgate.transactions (customer_id, event_time_us, transaction_id, terminal_id, amount_minor, currency,
    customer_version, terminal_version, flags, recorded_at_us)
SELECT given.*, $10::int8
FROM unnest($1::text[], $2::int8[], $3::text[], $4::text[], $5::int8[], $6::text[], $7::int8[], $8::int8[], $9::int2[])
    AS given
""",
    (_T, _8, _T, _T, _8, _T, _8, _8, _2),
    (_8,),
)

WRITE_DECISIONS: Final = Statement(
    "write_decisions",
    """
INSERT INTO tollgate.predictions (transaction_id, event_time_us, record, outcome, score, bundle_digest, log_leaf,
    log_writer, log_sequence, recorded_at_us)
SELECT given.*, $8::text, $9::int8, $10::int8
FROM unnest($1::text[], $2::int8[], $3::bytea[], $4::int2[], $5::float8[], $6::text[], $7::int4[]) AS given
""",
    (_T, _8, _B, _2, _F, _T, _4),
    (_T, _8, _8),
)

WRITE_OUTBOX: Final = Statement(
    "write_outbox",
    """
INSERT INTO tollgate.outbox (transaction_id, event_time_us, recorded_at_us)
SELECT given.*, $3::int8 FROM unnest($1::text[], $2::int8[]) AS given
""",
    (_T, _8),
    (_8,),
)

WRITE_BLOCK: Final = Statement(
    "write_block",
    """
INSERT INTO tollgate.log_blocks (writer, sequence, previous, root, count, leaves, hash, recorded_at_us)
VALUES ($1::text, $2::int8, $3::bytea, $4::bytea, $5::int4, $6::bytea, $7::bytea, $8::int8)
""",
    scalars=(_T, _8, _B, _B, _4, _B, _B, _8),
)

WRITE_CUSTOMERS: Final = Statement(
    "write_customers",
    """
UPDATE tollgate.customer_features held
SET version = given.version, header = given.header, surrogate = given.surrogate
FROM unnest($1::text[], $2::int8[], $3::bytea[], $4::text[]) AS given(key, version, header, surrogate)
WHERE held.customer_id = given.key
""",
    (_T, _8, _B, _T),
)

WRITE_TERMINALS: Final = Statement(
    "write_terminals",
    """
UPDATE tollgate.merchant_features held
SET version = given.version, header = given.header, surrogate = given.surrogate
FROM unnest($1::text[], $2::int8[], $3::bytea[], $4::text[]) AS given(key, version, header, surrogate)
WHERE held.terminal_id = given.key
""",
    (_T, _8, _B, _T),
)

WRITE_TILES: Final = Statement(
    "write_tiles",
    """
INSERT INTO tollgate.entity_tiles (entity, entity_key, start_us, version, data)
SELECT given.* FROM unnest($1::int2[], $2::text[], $3::int8[], $4::int8[], $5::bytea[]) AS given
ON CONFLICT (entity, entity_key, start_us) DO UPDATE SET version = excluded.version, data = excluded.data
""",
    (_2, _T, _8, _8, _B),
)

DELETE_TILES: Final = Statement(
    "delete_tiles",
    """
DELETE FROM tollgate.entity_tiles t
USING unnest($1::int2[], $2::text[], $3::int8[]) AS given(entity, key, start_us)
WHERE t.entity = given.entity AND t.entity_key = given.key AND t.start_us = given.start_us
""",
    (_2, _T, _8),
)

DELETE_UNUSED_CUSTOMERS: Final = Statement(
    "delete_unused_customers",
    "DELETE FROM tollgate.customer_features WHERE customer_id = ANY($1::text[]) AND header IS NULL",
    (_T,),
)

DELETE_UNUSED_TERMINALS: Final = Statement(
    "delete_unused_terminals",
    "DELETE FROM tollgate.merchant_features WHERE terminal_id = ANY($1::text[]) AND header IS NULL",
    (_T,),
)

WRITE_WAITED: Final = Statement(
    "write_waited",
    """
UPDATE tollgate.feedback_labels held
SET customer_version = given.customer_version, terminal_version = given.terminal_version
FROM unnest($1::text[], $2::bytea[], $3::int8[], $4::int8[])
    AS given(id, digest, customer_version, terminal_version)
WHERE held.transaction_id = given.id AND held.label_digest = given.digest
""",
    (_T, _B, _8, _8),
)

CLEAR_LABELLED: Final = Statement(
    "clear_labelled",
    "UPDATE tollgate.transaction_ids SET labelled = false WHERE transaction_id = ANY($1::text[]) AND labelled",
    (_T,),
)

CLAIM_LABELLED: Final = Statement(
    "claim_labelled",
    """
INSERT INTO tollgate.transaction_ids AS held (transaction_id)
SELECT id FROM unnest($1::text[]) AS given(id) ORDER BY id COLLATE "C"
ON CONFLICT (transaction_id) DO UPDATE SET labelled = held.labelled WHERE false
""",
    (_T,),
)
"""Locks the rows of all ids, known or not: who conflicts is locked before the condition is looked at."""

LABELLED: Final = Statement(
    "labelled",
    """
SELECT i.transaction_id, i.digest, i.event_time_us, i.customer_id, i.terminal_id
FROM unnest($1::text[]) AS given(id)
JOIN tollgate.transaction_ids i ON i.transaction_id = given.id
WHERE i.digest IS NOT NULL
""",
    (_T,),
    columns=(_T, _B, _8, _T, _T),
)

LABELS_HELD: Final = Statement(
    "labels_held",
    """
SELECT held.transaction_id, held.label_digest
FROM unnest($1::text[], $2::bytea[]) AS given(id, digest)
JOIN tollgate.feedback_labels held ON held.transaction_id = given.id AND held.label_digest = given.digest
""",
    (_T, _B),
    columns=(_T, _B),
)

WRITE_FOLDED: Final = Statement(
    "write_folded",
    """
INSERT INTO tollgate.feedback_labels (transaction_id, label_digest, verdict, source, event_time_us, known_at_us,
    confidence, author, customer_version, terminal_version, recorded_at_us)
SELECT given.*, $11::int8
FROM unnest($1::text[], $2::bytea[], $3::int2[], $4::int2[], $5::int8[], $6::int8[], $7::int2[], $8::text[],
    $9::int8[], $10::int8[]) AS given
""",
    (_T, _B, _2, _2, _8, _8, _2, _T, _8, _8),
    (_8,),
)

WRITE_UNFOLDED: Final = Statement(
    "write_unfolded",
    """
INSERT INTO tollgate.feedback_labels (transaction_id, label_digest, verdict, source, event_time_us, known_at_us,
    confidence, author, recorded_at_us)
SELECT given.*, $9::int8
FROM unnest($1::text[], $2::bytea[], $3::int2[], $4::int2[], $5::int8[], $6::int8[], $7::int2[], $8::text[]) AS given
""",
    (_T, _B, _2, _2, _8, _8, _2, _T),
    (_8,),
)

MARK_LABELLED: Final = Statement(
    "mark_labelled",
    "UPDATE tollgate.transaction_ids SET labelled = true WHERE transaction_id = ANY($1::text[]) AND NOT labelled",
    (_T,),
)


@lru_cache(maxsize=128)
def merged(statements: tuple[Statement, ...]) -> Statement:
    """One statement that does what several do that write and return nothing, over one snapshot.

    Each becomes a data-modifying part of a `WITH` query, so it costs one start of the executor and not several. No two
    parts may touch the same row, and none may read what another writes.
    """
    parts = []
    count = 0
    for place, statement in enumerate(statements):
        text = _PARAMETER.sub(lambda found, first=count: f"${int(found[1]) + first}", statement.sql)  # type: ignore[misc]  # mypy cannot infer the default's type
        parts.append(f"w{place} AS ({text})")
        count += len(statement.arrays) + len(statement.scalars)
    # Hashed, because Postgres cuts names of prepared statements at 63 bytes.
    names = "+".join(statement.name for statement in statements)
    name = f"merged_{hashlib.sha256(names.encode()).hexdigest()[:16]}"
    return Statement(name, f"WITH {', '.join(parts)} SELECT", parts=statements)


_PARAMETER: Final = re.compile(r"\$(\d+)")
