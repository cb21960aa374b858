"""What a unit of work writes, as columns of statements; and labels back from their rows."""

from __future__ import annotations

from collections.abc import Sequence

from shared.adapters import postgres_ledger_statements as sql
from shared.adapters.postgres_wire import Row, Step
from shared.domain.entity_state_codec import header_bytes, tile_bytes
from shared.domain.feature_view import Entity
from shared.domain.identifiers import TransactionId
from shared.domain.labels import PRECEDENCE, Label
from shared.domain.ledger import DecisionRow, DecisionWrites, EntityChange, LabelVersions, LabelWrites, TransactionRow
from shared.domain.log_block import Head, LogBlock

type Columns = tuple[Sequence[str] | Sequence[int] | Sequence[bytes], ...]


def decision_steps(writes: DecisionWrites, head: Head | None) -> list[Step]:
    """All that a unit of work on transactions writes; what there is none of needs no statement.

    Args:
        writes: What to write.
        head: Of its block, whose hash is not computed a second time.
    """
    steps: list[Step] = []
    if writes.transactions:
        steps.append((sql.WRITE_TRANSACTIONS, (*_transaction_columns(writes.transactions), writes.recorded_at_us)))
    block = writes.block
    if block is not None and head is not None:
        steps += _decided_steps(writes.decisions, block, head, writes.recorded_at_us)
    if writes.waited:
        steps.append((sql.WRITE_WAITED, _version_columns(writes.waited)))
        steps.append((sql.CLEAR_LABELLED, (sorted({item.label.transaction_id for item in writes.waited}),)))
    return steps + entity_steps(writes.entities)


def label_steps(writes: LabelWrites) -> list[Step]:
    """All that a unit of work on labels writes."""
    steps: list[Step] = []
    if writes.folded:
        labels = [item.label for item in writes.folded]
        _, digests, customer_versions, terminal_versions = _version_columns(writes.folded)
        columns = _label_columns(labels, digests)
        steps.append((sql.WRITE_FOLDED, (*columns, customer_versions, terminal_versions, writes.recorded_at_us)))
    if writes.waiting:
        columns = _label_columns([item.label for item in writes.waiting], [item.digest for item in writes.waiting])
        steps.append((sql.WRITE_UNFOLDED, (*columns, writes.recorded_at_us)))
        steps.append((sql.MARK_LABELLED, (sorted({item.label.transaction_id for item in writes.waiting}),)))
    return steps + entity_steps(writes.entities)


def entity_steps(changes: Sequence[EntityChange]) -> list[Step]:
    """What becomes of entities: headers, tiles written and tiles deleted."""
    steps: list[Step] = []
    for entity, statement in ((Entity.CUSTOMER, sql.WRITE_CUSTOMERS), (Entity.TERMINAL, sql.WRITE_TERMINALS)):
        own = [change for change in changes if change.entity is entity]
        if own:
            steps.append((statement, _header_columns(own)))
    written = [(change, tile) for change in changes for tile in change.changed]
    if written:
        tiles = (
            [sql.ENTITY_CODES[change.entity] for change, _ in written],
            [change.key for change, _ in written],
            [tile.start_us for _, tile in written],
            [change.state.header.version for change, _ in written],
            [tile_bytes(tile) for _, tile in written],
        )
        steps.append((sql.WRITE_TILES, tiles))
    removed = [(change, start_us) for change in changes for start_us in change.removed]
    if removed:
        gone = (
            [sql.ENTITY_CODES[change.entity] for change, _ in removed],
            [change.key for change, _ in removed],
            [start_us for _, start_us in removed],
        )
        steps.append((sql.DELETE_TILES, gone))
    return steps


def label_of(row: Row) -> Label:
    """The label of a row of the statement `WAITING`."""
    identifier, _, verdict, source, event_time_us, known_at_us, confidence, author = row
    return Label(
        TransactionId(identifier),
        sql.VERDICTS[verdict],
        PRECEDENCE[source],
        event_time_us,
        known_at_us,
        confidence,
        author,
    )


def _transaction_columns(rows: Sequence[TransactionRow]) -> Columns:
    items = [row.transaction for row in rows]
    return (
        [item.customer_id for item in items],
        [item.event_time_us for item in items],
        [item.transaction_id for item in items],
        [item.terminal_id for item in items],
        [item.amount_minor for item in items],
        [item.currency for item in items],
        [row.customer_version for row in rows],
        [row.terminal_version for row in rows],
        [row.lateness.value for row in rows],
    )


def _decided_steps(rows: Sequence[DecisionRow], block: LogBlock, head: Head, recorded_at_us: int) -> list[Step]:
    ids, times = [row.transaction_id for row in rows], [row.event_time_us for row in rows]
    decisions = (
        ids,
        times,
        [row.record for row in rows],
        [sql.OUTCOME_CODES[row.outcome] for row in rows],
        [row.score for row in rows],
        [row.bundle_digest for row in rows],
        list(range(len(rows))),
        block.writer,
        block.sequence,
        recorded_at_us,
    )
    log = (
        block.writer,
        block.sequence,
        block.previous,
        block.root,
        block.count,
        b"".join(block.leaves),
        head.hash,
        recorded_at_us,
    )
    return [
        (sql.WRITE_DECISIONS, decisions),
        (sql.WRITE_BLOCK, log),
        (sql.WRITE_OUTBOX, (ids, times, recorded_at_us)),
    ]


def _header_columns(changes: Sequence[EntityChange]) -> Columns:
    return (
        [change.key for change in changes],
        [change.state.header.version for change in changes],
        [header_bytes(change.state.header, len(change.state.tiles)) for change in changes],
        [change.surrogate for change in changes],
    )


def _version_columns(rows: Sequence[LabelVersions]) -> tuple[list[str], list[bytes], list[int], list[int]]:
    return (
        [row.label.transaction_id for row in rows],
        [row.digest for row in rows],
        [row.customer_version for row in rows],
        [row.terminal_version for row in rows],
    )


def _label_columns(labels: Sequence[Label], digests: Sequence[bytes]) -> Columns:
    return (
        [label.transaction_id for label in labels],
        digests,
        [sql.VERDICT_CODES[label.verdict] for label in labels],
        [sql.SOURCE_CODES[label.source] for label in labels],
        [label.event_time_us for label in labels],
        [label.known_at_us for label in labels],
        [label.confidence for label in labels],
        [label.author for label in labels],
    )
