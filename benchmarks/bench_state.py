"""What entity state costs per transaction: to read features, to fold, to encode, refresh and decode; and its size.

Input is that of `bench_features`. A stream is replayed through state as an adapter would: read, fold the transaction
into both entities, fold labels once they are known. Times are CPU times of one core, without garbage collection. Every
transaction has a label, which is the most there can be.

- typical: the last transactions of the data, on states warmed up with all before; labels known at once.
- hot: a third of the traffic at one terminal, and only its transactions counted.
- late: the same, each label known and recorded up to 20 days after its transaction.
- burst: one terminal at 100 transactions a second, eight days after it had half an hour of the same.

Values of the first three are compared with `transform_many` over the same events, bit for bit.
"""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from benchmarks.bench_features import load
from benchmarks.report import Report
from shared.domain.entity_state import EntityState, Folded, LaterLabel, fold
from shared.domain.entity_state_codec import header_bytes, read_state, refreshed, state_bytes, tile_bytes
from shared.domain.entity_state_layout import BASE_LAYOUT
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


LATE_US: Final = 20 * US_PER_DAY
"""Labels of the late world are known up to this long after their transaction."""

BURST_RATE: Final = 100
BURST_SECONDS: Final = 1_800
BURST_MEASURED: Final = 2_000


class Event(NamedTuple):
    """A transaction."""

    transaction: Transaction
    past: PastTransaction


class Told(NamedTuple):
    """A label with the entities of its transaction."""

    later: LaterLabel
    customer: tuple[Entity, str]
    terminal: tuple[Entity, str]


class World(NamedTuple):
    """The events of the end of the data, the states they meet, and the labels that become known on the way."""

    events: list[Event]
    states: dict[tuple[Entity, str], EntityState]
    told: list[Told]


def run() -> Report:
    """The figures."""
    report = Report("state")
    columns, labels, source = load()
    report.add("transactions", len(columns.event_time_us), "rows", note=source)
    us = measure(report, "typical", warmed(columns, labels), columns, labels, aim=AIM_US)
    gc.collect()
    columns = with_hot_terminal(columns)
    measure(report, "hot", warmed(columns, labels), columns, labels, aim=HOT_FACTOR * us, only="hot")
    gc.collect()
    late = with_late_labels(columns, labels)
    measure(report, "late", warmed(columns, late), columns, late, aim=HOT_FACTOR * us, only="hot")
    gc.collect()
    measure_burst(report, aim=HOT_FACTOR * us)
    return report


def with_hot_terminal(columns: TransactionColumns) -> TransactionColumns:
    """The same data with every third transaction at one terminal."""
    terminal = columns.terminal.astype(np.str_).astype("<U8")
    terminal[np.random.default_rng(20183).random(len(terminal)) < 1 / 3] = "hot"
    return TransactionColumns(
        columns.transaction_id, columns.event_time_us, columns.amount_minor, columns.customer, terminal
    )


def with_late_labels(columns: TransactionColumns, labels: LabelColumns) -> LabelColumns:
    """The same labels, each known at some time of the 20 days after its transaction."""
    late_us = np.random.default_rng(20184).integers(0, LATE_US, len(labels.row))
    known_at_us = columns.event_time_us[labels.row] + late_us
    return LabelColumns(labels.row, labels.is_fraud, known_at_us, labels.source, labels.confidence)


def warmed(columns: TransactionColumns, labels: LabelColumns) -> World:
    """The last transactions, and the states of their entities just before them."""
    order = np.lexsort((columns.transaction_id, columns.event_time_us))
    last = order[-MEASURED:]
    label_of = np.full(len(order), -1)
    label_of[labels.row] = np.arange(len(labels.row))
    states: dict[tuple[Entity, str], EntityState] = {}
    cut = len(order) - MEASURED
    start_us = int(columns.event_time_us[last[0]])
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    told: dict[int, Told] = {}
    for entity, keys in ((Entity.CUSTOMER, columns.customer), (Entity.TERMINAL, columns.terminal)):
        wanted = np.unique(keys[last])
        reach_us = CARD_V1.horizon_us(entity) + 40 * US_PER_DAY  # what state has dropped anyway
        rows = np.flatnonzero(np.isin(keys, wanted) & (columns.event_time_us > start_us - reach_us))
        rows = rows[np.argsort(rank[rows])]
        grouped: dict[str, list[PastTransaction]] = {str(key): [] for key in wanted.tolist()}
        for row in rows.tolist():
            label = label_from(columns, labels, row, int(label_of[row]))
            is_known = label is not None and label.known_at_us < start_us
            if rank[row] < cut:
                event = event_of(columns, row).past
                grouped[str(keys[row])].append(replace(event, labels=(label,)) if label and is_known else event)
            if label and not is_known:
                later = LaterLabel(int(columns.event_time_us[row]), label)
                of_terminal = Entity.TERMINAL, str(columns.terminal[row])
                told[row] = Told(later, (Entity.CUSTOMER, str(columns.customer[row])), of_terminal)
        for key, events in grouped.items():
            states[entity, key] = fold(EntityState.empty(BASE_LAYOUT, entity), events).state
    by_time = sorted(told.items(), key=lambda item: (item[1].later.label.known_at_us, rank[item[0]]))
    return World([event_of(columns, row) for row in last.tolist()], states, [each for _, each in by_time])


def event_of(columns: TransactionColumns, row: int) -> Event:
    """One row as objects; ids have the length of the data's."""
    time_us, amount = int(columns.event_time_us[row]), int(columns.amount_minor[row])
    identifier = TransactionId(f"{int(columns.transaction_id[row]):07}")
    customer, terminal = CustomerId(str(columns.customer[row])), TerminalId(str(columns.terminal[row]))
    return Event(
        Transaction(identifier, customer, terminal, amount, "EUR", time_us),
        PastTransaction(identifier, time_us, amount),
    )


def label_from(columns: TransactionColumns, labels: LabelColumns, row: int, place: int) -> Label | None:
    """The label of a row, if it has one."""
    if place < 0:
        return None
    known_at_us = int(labels.known_at_us[place])
    verdict = Verdict.FRAUD if labels.is_fraud[place] else Verdict.GENUINE
    identifier = TransactionId(f"{int(columns.transaction_id[row]):07}")
    return Label(identifier, verdict, LabelSource.ANALYST, known_at_us, known_at_us, 100, "bench")


class Spent:
    """CPU time spent by name, in seconds; of the thread, so that others on the machine do not count."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.count: dict[str, int] = {}
        self._last = 0.0

    def start(self) -> None:
        """The clock runs from here."""
        self._last = time.thread_time()

    def stop(self, what: str) -> None:
        """What was done since the start or the last stop."""
        now = time.thread_time()
        self.seconds[what] = self.seconds.get(what, 0.0) + now - self._last
        self.count[what] = self.count.get(what, 0) + 1
        self._last = time.thread_time()

    def us(self, what: str) -> float:
        """Mean microseconds of one."""
        return 1e6 * self.seconds[what] / self.count[what]


def stored(folded: Folded) -> tuple[bytes, list[bytes]]:
    """What an adapter writes of a fold."""
    return header_bytes(folded.state.header, len(folded.state.tiles)), [tile_bytes(tile) for tile in folded.changed]


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
    reader, states, spent, ignored = StateReader(CARD_V1), dict(world.states), Spent(), Spent()
    touched = n_measured = n_told = 0
    vectors = []
    gc.disable()
    for event in world.events:
        item = event.transaction
        counts = only is None or item.terminal_id == only
        clock = spent if counts else ignored
        of_customer, of_terminal = (Entity.CUSTOMER, item.customer_id), (Entity.TERMINAL, item.terminal_id)
        customer, terminal = states[of_customer], states[of_terminal]
        clock.start()
        vectors.append(reader.read(customer, terminal, item))
        clock.stop("read")
        folded = fold(customer, [event.past]), fold(terminal, [event.past])
        clock.stop("fold")
        rows = [stored(one) for one in folded]
        clock.stop("encode")
        again = refreshed(customer, *rows[0]), refreshed(terminal, *rows[1])
        clock.stop("refresh")
        states[of_customer], states[of_terminal] = again
        while n_told < len(world.told) and world.told[n_told].later.label.known_at_us <= item.event_time_us:
            told = world.told[n_told]
            n_told += 1
            of_both = [key for key in (told.customer, told.terminal) if key in states]
            clock = spent if len(of_both) == 2 and only in {None, told.terminal[1]} else ignored
            clock.start()
            labelled = [fold(states[key], [], [told.later]).state for key in of_both]
            clock.stop("label")
            states.update(zip(of_both, labelled, strict=True))
        if counts:
            n_measured += 1
            touched += sum(len(one.changed) + len(one.removed) for one in folded)
        if counts and n_measured % CHUNK == 0:
            whole = [state_bytes(states[key]) for key in (of_customer, of_terminal)]
            spent.start()
            for row in whole:
                read_state(*row)
            spent.stop("decode")
    gc.enable()
    both = spent.us("read") + spent.us("fold")
    report.add(f"{name}: read and fold", both, "us per tx", aim=aim, better="lower", note=f"{n_measured} transactions")
    for what, note in (
        ("read", "25 features from two states in memory"),
        ("fold", "one transaction into both"),
        ("label", f"one label into both; {spent.count['label']} of them"),
        ("encode", "both headers and the changed tiles"),
        ("refresh", "both, from their headers and changed tiles"),
        ("decode", "both states whole, all their tiles"),
    ):
        report.add(f"{name}: {what}", spent.us(what), "us", note=note)
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
        memory = float(np.mean([state.n_bytes for state in chosen]))
        report.add(f"{name}: memory of a {entity}", memory, "bytes", note="as estimated by n_bytes")


def measure_burst(report: Report, *, aim: float) -> None:
    """One terminal at 100 transactions a second; labels come late for any transaction of eight days ago."""
    rng = np.random.default_rng(20185)
    size = BURST_RATE * BURST_SECONDS
    start_us = 1_530_000_000_000_000
    offsets = np.sort(rng.integers(0, BURST_SECONDS * 1_000_000, size)).tolist()
    before = [PastTransaction(TransactionId(f"a{n:07}"), start_us + at, 1000 + n % 977) for n, at in enumerate(offsets)]
    terminal = EntityState.empty(BASE_LAYOUT, Entity.TERMINAL)
    for low in range(0, size, 1_000):
        terminal = fold(terminal, before[low : low + 1_000]).state
    customer = EntityState.empty(BASE_LAYOUT, Entity.CUSTOMER)
    reader, spent = StateReader(CARD_V1), Spent()
    n_bytes = 0
    gc.collect()
    gc.disable()
    for n in range(BURST_MEASURED):
        now_us = start_us + 8 * US_PER_DAY + n * 1_000_000 // BURST_RATE
        identifier = TransactionId(f"b{n:07}")
        item = Transaction(identifier, CustomerId("c"), TerminalId("hot"), 5_000, "EUR", now_us)
        spent.start()
        reader.read(customer, terminal, item)
        spent.stop("read")
        folded = fold(terminal, [PastTransaction(identifier, now_us, 5_000)])
        spent.stop("fold")
        rows = stored(folded)
        spent.stop("encode")
        terminal = refreshed(terminal, *rows)
        spent.stop("refresh")
        n_bytes += len(rows[0]) + sum(map(len, rows[1]))
        old = before[int(rng.integers(size))]
        known_at_us = old.event_time_us + int(rng.integers(US_PER_DAY))
        label = Label(
            old.transaction_id, Verdict.GENUINE, LabelSource.ANALYST, known_at_us, known_at_us, 100, identifier
        )
        spent.start()
        terminal = fold(terminal, [], [LaterLabel(old.event_time_us, label)]).state
        spent.stop("label")
    gc.enable()
    both = spent.us("read") + spent.us("fold")
    note = f"{size:,} transactions in {len(terminal.tiles):,} tiles, at most"
    note += f" {max(len(tile.times) for tile in terminal.tiles)} in one"
    report.add("burst: read and fold", both, "us per tx", aim=aim, better="lower", note=note)
    for what in ("read", "fold", "label", "encode", "refresh"):
        report.add(f"burst: {what}", spent.us(what), "us", note="of the terminal")
    report.add("burst: written", n_bytes / BURST_MEASURED, "bytes per tx", note="of the terminal")
