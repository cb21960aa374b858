"""What a chaos run is held to: the tables of a clean run, and every decision rebuilt from raw events.

Written apart from the product's own verification, so that a fault shared by deciding and verifying code shows: only the
feature definition, the record's form and the log's hashing are the product's.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import psycopg

from shared.domain.canonical import Digest
from shared.domain.decision import NO_RULES, decide_outcome
from shared.domain.decision_record import Lateness, decision_bytes, read_decision
from shared.domain.feature_columns import LabelColumns, TransactionColumns, transform_many
from shared.domain.feature_view import CARD_V1
from shared.domain.log_block import LogBlock, verify_chain, verify_leaves
from shared.domain.reasons import ranked_reasons
from shared.domain.score import Score
from tests.chaos.stores import real_scorer
from tests.chaos.writer import POLICY

type Row = tuple[Any, ...]

SAME: Final = {
    "transaction_ids": "SELECT transaction_id, digest, event_time_us, customer_id, terminal_id FROM transaction_ids",
    "transactions": (
        "SELECT transaction_id, customer_id, event_time_us, terminal_id, amount_minor, currency FROM transactions"
    ),
    "predictions": "SELECT transaction_id, event_time_us FROM predictions",
    "feedback_labels": (
        "SELECT transaction_id, label_digest, verdict, source, event_time_us, known_at_us, confidence, author,"
        " customer_version IS NULL, terminal_version IS NULL FROM feedback_labels"
    ),
    "dead_letters": "SELECT source, partition_id, event_offset, field, rule, body FROM dead_letters",
    "customer_features": "SELECT customer_id, version, header FROM customer_features",
    "merchant_features": "SELECT terminal_id, version, header FROM merchant_features",
    "entity_tiles": "SELECT entity, entity_key, start_us, data FROM entity_tiles",
    "outbox": "SELECT transaction_id, event_time_us FROM outbox",
}
"""What must be the same whatever happened; versions and the order of decisions may differ, salts do."""


def differences(clean_dsn: str, hostile_dsn: str) -> list[str]:
    """Tables in which a run differs from the clean one."""
    found = []
    for table, query in SAME.items():
        clean, hostile = sorted(_rows(clean_dsn, query), key=repr), sorted(_rows(hostile_dsn, query), key=repr)
        if clean != hostile:
            only = [repr(row)[:160] for row in hostile if row not in clean][:1]
            lacking = [repr(row)[:160] for row in clean if row not in hostile][:1]
            found.append(f"{table}: {len(clean)} rows clean, {len(hostile)} hostile; new {only}, lacking {lacking}")
    return found


def verified(dsn: str, n_transactions: int) -> list[str]:
    """What is wrong with the decisions of a database by itself."""
    rows = _rows(
        dsn,
        "SELECT t.transaction_id, t.event_time_us, t.amount_minor, t.customer_id, t.terminal_id,"
        " t.customer_version, t.terminal_version, p.record"
        " FROM transactions t LEFT JOIN predictions p USING (transaction_id, event_time_us)",
    )
    labels = _rows(
        dsn,
        "SELECT transaction_id, verdict, known_at_us, source, confidence, customer_version, terminal_version"
        " FROM feedback_labels WHERE customer_version IS NOT NULL",
    )
    problems = []
    if len(rows) != n_transactions:
        problems.append(f"{len(rows)} transactions stored, not {n_transactions}")
    if any(row[7] is None for row in rows):
        problems.append("a transaction has no decision")
        return problems
    problems += _sparse(rows, labels)
    problems += _different(rows, labels)
    return problems + _log_faults(dsn)


def _sparse(rows: list[Row], labels: list[Row]) -> list[str]:
    """Entities whose versions are not 1, 2, 3 ... over transactions and labels."""
    entities = {row[0]: (row[3], row[4]) for row in rows}
    created: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        created.setdefault(("customer", row[3]), []).append(row[5])
        created.setdefault(("terminal", row[4]), []).append(row[6])
    for label in labels:
        customer, terminal = entities[label[0]]
        created.setdefault(("customer", customer), []).append(label[5])
        created.setdefault(("terminal", terminal), []).append(label[6])
    return [
        f"versions of {kind} {key} are not dense"
        for (kind, key), versions in created.items()
        if sorted(versions) != list(range(1, len(versions) + 1))
    ]


def _different(rows: list[Row], labels: list[Row]) -> list[str]:
    """Decisions that do not follow, bit for bit, from raw events by their versions."""
    places = {row[0]: place for place, row in enumerate(rows)}

    def ints(items: list[Row], column: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array([item[column] for item in items], dtype=np.int64)

    columns = TransactionColumns(
        transaction_id=np.array([row[0] for row in rows], dtype=np.str_),
        event_time_us=ints(rows, 1),
        amount_minor=ints(rows, 2),
        customer=np.array([row[3] for row in rows], dtype=np.str_),
        terminal=np.array([row[4] for row in rows], dtype=np.str_),
        customer_version=ints(rows, 5),
        terminal_version=ints(rows, 6),
    )
    known = LabelColumns(
        row=np.array([places[label[0]] for label in labels], dtype=np.int64),
        is_fraud=np.array([label[1] == _FRAUD for label in labels], dtype=np.bool_),
        known_at_us=ints(labels, 2),
        source=ints(labels, 3),
        confidence=ints(labels, 4),
        customer_version=ints(labels, 5),
        terminal_version=ints(labels, 6),
    )
    vectors = transform_many(CARD_V1, columns, known)
    scorer = real_scorer()
    scored = scorer.score(vectors)
    probabilities = scorer.calibration.probability_many(scored.raw)
    problems = []
    for place, row in enumerate(rows):
        record = read_decision(bytes(row[7]))
        if (record.customer_version, record.terminal_version) != (row[5] - 1, row[6] - 1):
            problems.append(f"{row[0]}: the versions of record and row differ")
        if record.lateness is not Lateness.NONE:
            continue  # state may have dropped what the raw events still have; the record says so
        if record.vector != vectors[place].tobytes():
            problems.append(f"{row[0]}: the vector differs from raw events")
            continue
        contributions = scored.contributions[place].tolist()
        score = Score(float(probabilities[place]), scorer.bundle_digest)
        decision = decide_outcome(score, record.amount_minor, POLICY, NO_RULES, view=CARD_V1, vector=vectors[place])
        again = (float(scored.raw[place]), decision, ranked_reasons(CARD_V1, contributions))
        if again != (record.raw_score, record.decision, record.reasons) or decision_bytes(record) != bytes(row[7]):
            problems.append(f"{row[0]}: score, decision or reasons differ")
    return problems


_FRAUD: Final = 0
"""`feedback_labels.verdict` of a fraud."""


def _log_faults(dsn: str) -> list[str]:
    """What is wrong with the log: every chain, every leaf, and nothing beside them."""
    blocks: dict[str, list[LogBlock]] = {}
    for writer, sequence, previous, root, count, leaves in _rows(
        dsn, "SELECT writer, sequence, previous, root, count, leaves FROM log_blocks ORDER BY writer, sequence"
    ):
        parts = tuple(Digest(bytes(leaves[at : at + 32])) for at in range(0, len(leaves), 32))
        block = LogBlock(writer, sequence, Digest(bytes(previous)), Digest(bytes(root)), count, parts)
        blocks.setdefault(writer, []).append(block)
    stored: dict[tuple[str, int], list[bytes]] = {}
    for writer, sequence, record in _rows(
        dsn, "SELECT log_writer, log_sequence, record FROM predictions ORDER BY log_writer, log_sequence, log_leaf"
    ):
        stored.setdefault((writer, sequence), []).append(bytes(record))
    faults = [fault for writer, chain in blocks.items() for fault in verify_chain(writer, chain)]
    for chain in blocks.values():
        for block in chain:
            faults += verify_leaves(block, stored.pop((block.writer, block.sequence), []))
    return [*map(str, faults), *(f"decisions without block {place}" for place in stored)]


def _rows(dsn: str, query: str) -> list[Row]:
    with psycopg.connect(dsn) as connection:
        connection.execute("SET search_path = tollgate")
        found: list[Row] = connection.execute(query).fetchall()
        return found
