"""Statements that read the ledger back, and stored values from their rows."""

from __future__ import annotations

from typing import Any, Final

from shared.adapters.postgres_ledger_statements import ENTITY_CODES, VERDICTS
from shared.domain.archive import StoredBlock, StoredDecision, StoredEntity, StoredLabel, StoredTransaction
from shared.domain.canonical import DIGEST_BYTES, Digest
from shared.domain.decision import STRICTNESS
from shared.domain.decision_record import Lateness
from shared.domain.feature_view import Entity
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId
from shared.domain.labels import PRECEDENCE, Label
from shared.domain.log_block import LogBlock
from shared.domain.surrogates import Surrogate
from shared.domain.transaction import Transaction

type Row = tuple[Any, ...]

CUSTOMER_CODE: Final = ENTITY_CODES[Entity.CUSTOMER]

_DECISION: Final = """p.transaction_id, p.event_time_us, p.record, p.outcome, p.score, p.bundle_digest,
    p.log_writer, p.log_sequence, p.log_leaf, p.recorded_at_us"""

DECISION: Final = f"SELECT {_DECISION} FROM tollgate.predictions p WHERE p.transaction_id = %s"  # noqa: S608 - constants
"""Looks into every partition: what the claimed id says of the event time may be what is damaged."""

_HISTORIES: Final = """
SELECT t.transaction_id, t.customer_id, t.terminal_id, t.amount_minor, t.currency, t.event_time_us,
    t.customer_version, t.terminal_version, t.flags, i.digest, e.version, e.surrogate, {decision}
FROM tollgate.transactions t
LEFT JOIN tollgate.transaction_ids i ON i.transaction_id = t.transaction_id
LEFT JOIN tollgate.{table} e ON e.{key} = t.{key}
LEFT JOIN tollgate.predictions p ON p.transaction_id = t.transaction_id AND p.event_time_us = t.event_time_us
WHERE (%(all_entities)s OR ('x' || left(md5(%(seed)s || ':' || t.{key}), 8))::bit(32)::bigint < %(threshold)s)
    AND (%(all_times)s OR t.{key} IN (
        SELECT w.{key} FROM tollgate.transactions w
        WHERE w.event_time_us >= %(since_us)s AND w.event_time_us < %(until_us)s
    ))
ORDER BY t.{key}, t.event_time_us, t.transaction_id
"""

HISTORIES: Final = {
    Entity.CUSTOMER: _HISTORIES.format(decision=_DECISION, table="customer_features", key="customer_id"),
    Entity.TERMINAL: _HISTORIES.format(decision=_DECISION, table="merchant_features", key="terminal_id"),
}

LABELS: Final = """
SELECT transaction_id, verdict, source, event_time_us, known_at_us, confidence, author, label_digest,
    customer_version, terminal_version
FROM tollgate.feedback_labels WHERE transaction_id = ANY(%s)
"""

STRAYS: Final = """
SELECT 'claimed id', i.transaction_id FROM tollgate.transaction_ids i
WHERE i.digest IS NOT NULL
    AND NOT EXISTS (SELECT FROM tollgate.transactions t WHERE t.transaction_id = i.transaction_id)
UNION ALL
SELECT 'decision', p.transaction_id FROM tollgate.predictions p
WHERE NOT EXISTS (
    SELECT FROM tollgate.transactions t
    WHERE t.transaction_id = p.transaction_id AND t.event_time_us = p.event_time_us
)
UNION ALL
SELECT 'label', l.transaction_id FROM tollgate.feedback_labels l
WHERE l.customer_version IS NOT NULL
    AND NOT EXISTS (SELECT FROM tollgate.transactions t WHERE t.transaction_id = l.transaction_id)
"""

EXTENTS: Final = """
SELECT writer, min(sequence), max(sequence) FROM (
    SELECT writer, sequence FROM tollgate.log_blocks
    WHERE recorded_at_us >= %(since_us)s AND recorded_at_us < %(until_us)s
    UNION ALL
    SELECT log_writer, log_sequence FROM tollgate.predictions
    WHERE recorded_at_us >= %(since_us)s AND recorded_at_us < %(until_us)s
) AS found GROUP BY writer ORDER BY writer
"""
"""Decisions tell of blocks too: of those that are gone."""

_WITHIN: Final = """
JOIN unnest(%(writers)s::text[], %(firsts)s::int8[], %(lasts)s::int8[]) AS given(writer, first, last)
    ON given.writer = {writer} AND {sequence} BETWEEN given.first AND given.last
"""

_BLOCKS: Final = """
SELECT b.writer, b.sequence, b.previous, b.root, b.count, b.leaves, b.hash, b.recorded_at_us
FROM tollgate.log_blocks b {within}
ORDER BY b.writer, b.sequence DESC
"""
BLOCKS: Final = _BLOCKS.format(within="")
BLOCKS_WITHIN: Final = _BLOCKS.format(within=_WITHIN.format(writer="b.writer", sequence="b.sequence"))

_LOGGED: Final = """
SELECT {decision} FROM tollgate.predictions p {within}
ORDER BY p.log_writer, p.log_sequence DESC, p.log_leaf, p.transaction_id
"""
LOGGED: Final = _LOGGED.format(decision=_DECISION, within="")
LOGGED_WITHIN: Final = _LOGGED.format(
    decision=_DECISION, within=_WITHIN.format(writer="p.log_writer", sequence="p.log_sequence")
)

SEALS: Final = "SELECT seal_id, heads FROM tollgate.log_seals ORDER BY seal_id"


def decision_of(row: Row) -> StoredDecision:
    """The decision of a row of `DECISION` or `LOGGED`."""
    identifier, event_time_us, record, outcome, score, bundle_digest, writer, sequence, leaf, recorded_at_us = row
    return StoredDecision(
        TransactionId(identifier),
        event_time_us,
        record,
        STRICTNESS[outcome],
        score,
        bundle_digest,
        writer,
        sequence,
        leaf,
        recorded_at_us,
    )


def transaction_of(row: Row) -> StoredTransaction:
    """The transaction of a row of `HISTORIES`."""
    identifier, customer_id, terminal_id, amount_minor, currency, event_time_us = row[:6]
    customer_version, terminal_version, flags, digest, version, surrogate = row[6:12]
    return StoredTransaction(
        Transaction(
            TransactionId(identifier),
            CustomerId(customer_id),
            TerminalId(terminal_id),
            amount_minor,
            currency,
            event_time_us,
        ),
        customer_version,
        terminal_version,
        Lateness(flags),
        None if digest is None else Digest(digest),
        StoredEntity(version, None if surrogate is None else Surrogate(surrogate)),
        None if row[12] is None else decision_of(row[12:]),
    )


def label_of(row: Row) -> StoredLabel:
    """The label of a row of `LABELS`."""
    identifier, verdict, source, event_time_us, known_at_us, confidence, author, digest = row[:8]
    label = Label(
        TransactionId(identifier),
        VERDICTS[verdict],
        PRECEDENCE[source],
        event_time_us,
        known_at_us,
        confidence,
        author,
    )
    return StoredLabel(label, Digest(digest), row[8], row[9])


def block_of(row: Row) -> StoredBlock:
    """The block of a row of `BLOCKS`."""
    writer, sequence, previous, root, count, leaves, hashed, recorded_at_us = row
    cut = tuple(Digest(leaves[start : start + DIGEST_BYTES]) for start in range(0, len(leaves), DIGEST_BYTES))
    return StoredBlock(LogBlock(writer, sequence, Digest(previous), Digest(root), count, cut), hashed, recorded_at_us)
