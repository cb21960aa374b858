"""What entity state costs per transaction: to read features, to fold, to decode and encode; and how large it is.

Input is that of `bench_features`. A stream is replayed through state as an adapter would: read, fold the transaction
into both entities, fold its label when it is recorded. Times are those of one core, without garbage collection. Every
transaction has a label, which is the most there can be. Typical: the last transactions of the data, on states warmed
up with all before; hot: a third of the traffic at one terminal, and only its transactions counted. Values are compared
with `transform_many` over the same events, bit for bit.
"""

from __future__ import annotations

import gc
import time
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench_features import load
from benchmarks.report import Report
from shared.domain.entity_state import EntityState, LaterLabel, fold
from shared.domain.entity_state_codec import header_bytes, read_state, state_bytes, tile_bytes
from shared.domain.entity_state_read import StateReader
from shared.domain.feature_columns import LabelColumns, TransactionColumns, transform_many
from shared.domain.feature_view import CARD_V1, Entity
from shared.domain.features import PastTransaction
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import Label, LabelSource, Verdict
from shared.domain.transaction import Transaction

MEASURED: Final = 3_000
"""Transactions at the end of the data that are timed; all before them warm state up."""

AIM_US: Final = 40
"""Read and fold of one transaction, microseconds: the compute share of the chaos experiment."""

HOT_FACTOR: Final = 4
CHUNK: Final = 50


class Event(NamedTuple):
    """A transaction with its label, which is recorded with it and counts after the label delay."""

    transaction: Transaction
    past: PastTransaction
    label: Label


class World(NamedTuple):
    """The events of the end of the data, and the states they meet."""

    events: list[Event]
    states: dict[tuple[Entity, str], EntityState]


def run() -> Report:
    """The figures."""
    report = Report("state")
    columns, labels, source = load()
    report.add("transactions", len(columns.event_time_us), "rows", note=source)
    typical = warmed(columns, labels)
    us = measure(report, "typical", typical, columns, labels, aim=AIM_US)
    del typical
    gc.collect()
    hot_columns = with_hot_terminal(columns)
    hot = warmed(hot_columns, labels)
    measure(report, "hot", hot, hot_columns, labels, aim=HOT_FACTOR * us, only="hot")
    return report


def with_hot_terminal(columns: TransactionColumns) -> TransactionColumns:
    """The same data with every third transaction at one terminal."""
    terminal = columns.terminal.astype(np.str_).astype("<U8")
    terminal[np.random.default_rng(20183).random(len(terminal)) < 1 / 3] = "hot"
    return TransactionColumns(
        columns.transaction_id, columns.event_time_us, columns.amount_minor, columns.customer, terminal
    )


def warmed(columns: TransactionColumns, labels: LabelColumns) -> World:
    """The last transactions, and the states of their entities just before them."""
    order = np.lexsort((columns.transaction_id, columns.event_time_us))
    last = order[-MEASURED:]
    fraud = np.zeros(len(order), dtype=np.bool_)
    fraud[labels.row] = labels.is_fraud
    states: dict[tuple[Entity, str], EntityState] = {}
    cut = len(order) - MEASURED
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    for entity, keys in ((Entity.CUSTOMER, columns.customer), (Entity.TERMINAL, columns.terminal)):
        wanted = np.unique(keys[last])
        reach_us = CARD_V1.horizon_us(entity) + 40 * US_PER_DAY  # what state has dropped anyway
        recent = columns.event_time_us > columns.event_time_us[last[0]] - reach_us
        rows = np.flatnonzero(np.isin(keys, wanted) & (rank < cut) & recent)
        rows = rows[np.argsort(rank[rows])]
        grouped: dict[str, list[PastTransaction]] = {str(key): [] for key in wanted.tolist()}
        for row in rows.tolist():
            grouped[str(keys[row])].append(event_of(columns, fraud, row, with_label=True).past)
        for key, events in grouped.items():
            states[entity, key] = fold(EntityState.empty(CARD_V1, entity), events).state
    return World([event_of(columns, fraud, row) for row in last.tolist()], states)


def event_of(columns: TransactionColumns, fraud: NDArray[np.bool_], row: int, *, with_label: bool = False) -> Event:
    """One row as objects; ids have the length of the data's."""
    time_us, amount = int(columns.event_time_us[row]), int(columns.amount_minor[row])
    identifier = TransactionId(f"{int(columns.transaction_id[row]):07}")
    verdict = Verdict.FRAUD if fraud[row] else Verdict.GENUINE
    label = Label(identifier, verdict, LabelSource.ANALYST, time_us, time_us, 100, "bench")
    customer, terminal = CustomerId(str(columns.customer[row])), TerminalId(str(columns.terminal[row]))
    return Event(
        Transaction(identifier, customer, terminal, amount, "EUR", time_us),
        PastTransaction(identifier, time_us, amount, (label,) if with_label else ()),
        label,
    )


def measure(
    report: Report,
    name: str,
    world: World,
    columns: TransactionColumns,
    labels: LabelColumns,
    *,
    aim: float,
    only: str | None = None,
) -> float:
    """All figures of one world; the microseconds of read and fold."""
    reader, states = StateReader(CARD_V1), dict(world.states)
    spent = dict.fromkeys(("read", "fold", "label", "decode", "encode"), 0.0)
    touched = n_measured = 0
    vectors = []
    clock = time.perf_counter
    gc.disable()
    for event in world.events:
        item = event.transaction
        of_customer, of_terminal = (Entity.CUSTOMER, item.customer_id), (Entity.TERMINAL, item.terminal_id)
        customer, terminal = states[of_customer], states[of_terminal]
        started = clock()
        vectors.append(reader.read(customer, terminal, item))
        was_read = clock()
        folded = fold(customer, [event.past]), fold(terminal, [event.past])
        was_folded = clock()
        for one in folded:
            header_bytes(one.state.header, len(one.state.tiles))
            for tile in one.changed:
                tile_bytes(tile)
        encoded = clock()
        later = [LaterLabel(item.event_time_us, event.label)]
        labelled = [fold(one.state, [], later).state for one in folded]
        was_labelled = clock()
        states[of_customer], states[of_terminal] = labelled
        if only is not None and item.terminal_id != only:
            continue
        n_measured += 1
        spent["read"] += was_read - started
        spent["fold"] += was_folded - was_read
        spent["encode"] += encoded - was_folded
        spent["label"] += was_labelled - encoded
        touched += sum(len(one.changed) + len(one.removed) for one in folded)
        if n_measured % CHUNK == 0:
            rows = [state_bytes(state) for state in labelled]
            started = clock()
            for row in rows:
                read_state(*row)
            spent["decode"] += (clock() - started) * CHUNK
    gc.enable()
    per_us = {what: 1e6 * seconds / n_measured for what, seconds in spent.items()}
    both = per_us["read"] + per_us["fold"]
    report.add(f"{name}: read and fold", both, "us per tx", aim=aim, better="lower", note=f"{n_measured} transactions")
    for what, note in (
        ("read", "25 features from two states in memory"),
        ("fold", "one transaction into both"),
        ("label", "one label into both"),
        ("encode", "both headers and the changed tiles"),
        ("decode", "both states whole, all their tiles"),
    ):
        report.add(f"{name}: {what}", per_us[what], "us per tx", note=note)
    report.add(f"{name}: tiles written", touched / n_measured, "per tx", note="of both entities")
    add_sizes(report, name, states, only)
    ours = transform_many(CARD_V1, columns, labels)
    measured = np.lexsort((columns.transaction_id, columns.event_time_us))[-MEASURED:]
    wrong = int(np.sum(ours[measured].view(np.uint32) != np.array(vectors, dtype=np.float32).view(np.uint32)))
    report.add(f"{name}: values that differ from columns", wrong, "values", aim=0, better="lower")
    return both


def add_sizes(report: Report, name: str, states: dict[tuple[Entity, str], EntityState], only: str | None) -> None:
    """Bytes, tiles and events per entity."""
    for entity in Entity:
        chosen = [state for (of, key), state in states.items() if of is entity and only in (None, key)]
        if not chosen:
            continue
        chosen = chosen[:1000]
        sizes = [len(header) + sum(map(len, tiles)) for header, tiles in map(state_bytes, chosen)]
        n_tiles = np.mean([len(state.tiles) for state in chosen])
        n_events = np.mean([sum(len(tile.times) for tile in state.tiles) for state in chosen])
        widest = max(len(tile.times) for state in chosen for tile in state.tiles)
        note = f"{n_events:,.0f} events in {n_tiles:.1f} tiles, at most {widest} in one"
        report.add(f"{name}: state of a {entity}", float(np.mean(sizes)), "bytes", note=note)
