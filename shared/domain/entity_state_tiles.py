"""Tiles: ranges of event time that hold an entity's transactions and their labels, as columns of integers.

A tile is a range of the dyadic grid below `ROOT_WIDTH_US`, aligned to 1970: a range that holds more than `MAX_EVENTS`
transactions is halved, down to `MIN_WIDTH_US`. So which tiles there are follows from the set of transactions alone.

A tile also holds sums over its transactions and labels. A reader whose window covers a whole tile takes these and does
not look at single events; that bounds what a very hot entity costs. They are what the columns say, never more.

Of the labels of one transaction only those are kept that can ever hold: one that becomes known no earlier than
another and is no stronger never does. The rest, sorted by known-at, rise in strength too, so that at any time the last
that counts is the one that holds. What is kept follows from the set of labels, whatever their order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple

from shared.domain.features import PastTransaction
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import PRECEDENCE, Label

ROOT_WIDTH_US: Final = 32 * US_PER_DAY
"""Widest tile, microseconds: a card with two transactions a day fills one; state ends at a multiple of it."""

MIN_WIDTH_US: Final = ROOT_WIDTH_US // 512
"""Narrowest tile, 90 minutes in microseconds: keeps a very hot entity at 16 tiles a day."""

MAX_EVENTS: Final = 64
"""A wider tile with more transactions is halved (measured: the least write-ahead log, facts of the decide core)."""

_SEPARATOR: Final = "\n"
"""Between ids; an id holds visible ASCII only."""

_STRENGTH_BITS: Final = 8
"""A label's code: its source above these bits, then 7 bits of confidence and one of fraud."""


class Tile(NamedTuple):
    """One range of an entity's events; a named tuple because it is made anew for every event under a lock.

    Attributes:
        start_us: Start of the range, microseconds since 1970 UTC; a multiple of the width.
        width_us: Length of the range, microseconds.
        times: Event times in the order of events (event time, then id), microseconds since 1970 UTC.
        amounts: Minor units, by row.
        ids: Transaction ids, by row, with a line feed between them: text costs less to decode than a list.
        label_rows: Rows of the labels, ascending.
        label_known: When each became known, microseconds since 1970 UTC, ascending within a row.
        label_codes: Source, confidence and verdict of each, see `label_code`.
        amount_sum: Sum of the amounts.
        known_by_us: When the last of the labels became known; 0 without labels.
        n_fraud: Rows whose label is fraud once all are known.
        n_genuine: Rows whose label is genuine once all are known.
        genuine_sum: Sum of the amounts of these.
    """

    start_us: int
    width_us: int
    times: tuple[int, ...]
    amounts: tuple[int, ...]
    ids: str
    label_rows: tuple[int, ...] = ()
    label_known: tuple[int, ...] = ()
    label_codes: tuple[int, ...] = ()
    amount_sum: int = 0
    known_by_us: int = 0
    n_fraud: int = 0
    n_genuine: int = 0
    genuine_sum: int = 0

    @property
    def end_us(self) -> int:
        """First microsecond behind the range."""
        return self.start_us + self.width_us


def label_code(label: Label) -> int:
    """Source, confidence and verdict as one integer of 16 bits.

    >>> from shared.domain.labels import LabelSource, Verdict
    >>> label_code(Label("t", Verdict.FRAUD, LabelSource.CHARGEBACK, 0, 0, 100, "bank"))
    1225
    """
    return PRECEDENCE.index(label.source) << _STRENGTH_BITS | label.confidence << 1 | label.is_fraud


def id_list(tile: Tile) -> list[str]:
    """The ids, by row."""
    return tile.ids.split(_SEPARATOR)


def place_of(tile: Tile, time_us: int, transaction_id: str) -> int:
    """How many of the tile's events come before this place in the order of events."""
    row = bisect_left(tile.times, time_us)
    if row < len(tile.times) and tile.times[row] == time_us:
        ids = id_list(tile)
        while row < len(ids) and tile.times[row] == time_us and ids[row] < transaction_id:
            row += 1
    return row


def row_of(tile: Tile, time_us: int, transaction_id: str) -> int | None:
    """The row of a transaction; None if the tile does not hold it."""
    row = place_of(tile, time_us, transaction_id)
    if row < len(tile.times) and tile.times[row] == time_us and id_list(tile)[row] == transaction_id:
        return row
    return None


def with_event(tile: Tile, event: PastTransaction) -> Tile | None:
    """The tile with one more transaction and its labels; None if it already holds it."""
    time_us, identifier = event.event_time_us, event.transaction_id
    times = tile.times
    if not times or time_us > times[-1]:  # nearly always: the newest event
        row = len(times)
        ids = f"{tile.ids}{_SEPARATOR}{identifier}" if times else identifier
        label_rows = tile.label_rows
    else:
        row = place_of(tile, time_us, identifier)
        known = id_list(tile)
        if row < len(known) and times[row] == time_us and known[row] == identifier:
            return None
        ids = _SEPARATOR.join((*known[:row], identifier, *known[row:]))
        label_rows = tuple(at + (at >= row) for at in tile.label_rows)
    grown = tile._replace(
        times=(*times[:row], time_us, *times[row:]),
        amounts=(*tile.amounts[:row], event.amount_minor, *tile.amounts[row:]),
        ids=ids,
        label_rows=label_rows,
        amount_sum=tile.amount_sum + event.amount_minor,
    )
    return with_labels(grown, row, event.labels) if event.labels else grown


def with_labels(tile: Tile, row: int, labels: Sequence[Label]) -> Tile:
    """The tile with labels of one row added."""
    low, high = bisect_left(tile.label_rows, row), bisect_left(tile.label_rows, row + 1)
    found = [*zip(tile.label_known[low:high], tile.label_codes[low:high], strict=True)]
    kept = _that_can_hold([*found, *((label.known_at_us, label_code(label)) for label in labels)])
    return _with_sums(
        tile,
        (*tile.label_rows[:low], *(row for _ in kept), *tile.label_rows[high:]),
        (*tile.label_known[:low], *(known for known, _ in kept), *tile.label_known[high:]),
        (*tile.label_codes[:low], *(code for _, code in kept), *tile.label_codes[high:]),
    )


def halves(tile: Tile) -> list[Tile]:
    """The tile as the tiles of its range that hold events: itself, or as often halved as its events demand."""
    if len(tile.times) <= MAX_EVENTS or tile.width_us <= MIN_WIDTH_US:
        return [tile]
    width_us = tile.width_us // 2
    middle_us = tile.start_us + width_us
    cut = bisect_left(tile.times, middle_us)
    rows = ((tile.start_us, 0, cut), (middle_us, cut, len(tile.times)))
    return [
        part
        for start_us, low, high in rows
        if low < high
        for part in halves(_rows_of(tile, start_us, width_us, low, high))
    ]


def _that_can_hold(labels: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of (known-at, code) those that hold at some time, by known-at."""
    kept: list[tuple[int, int]] = []
    for known_us, code in sorted(labels):
        if kept and _strength(kept[-1]) >= _strength((known_us, code)):
            continue
        if kept and kept[-1][0] == known_us:
            kept.pop()
        kept.append((known_us, code))
    return kept


def _strength(label: tuple[int, int]) -> tuple[int, int, int]:
    """The order of `Label.strength`, from known-at and code."""
    known_us, code = label
    return code >> _STRENGTH_BITS, known_us, code & ((1 << _STRENGTH_BITS) - 1)


def _rows_of(tile: Tile, start_us: int, width_us: int, low: int, high: int) -> Tile:
    """The tile of a range that holds the rows from low to high."""
    first, last = bisect_left(tile.label_rows, low), bisect_left(tile.label_rows, high)
    amounts = tile.amounts[low:high]
    part = Tile(
        start_us,
        width_us,
        tile.times[low:high],
        amounts,
        _SEPARATOR.join(id_list(tile)[low:high]),
        amount_sum=sum(amounts),
    )
    rows = tuple(row - low for row in tile.label_rows[first:last])
    return _with_sums(part, rows, tile.label_known[first:last], tile.label_codes[first:last])


def _with_sums(tile: Tile, rows: tuple[int, ...], known: tuple[int, ...], codes: tuple[int, ...]) -> Tile:
    """The tile with these labels and what they sum up to once all are known."""
    last = dict(zip(rows, codes, strict=True))  # the last label of a row is the strongest
    genuine = [tile.amounts[row] for row, code in last.items() if not code & 1]
    return tile._replace(
        label_rows=rows,
        label_known=known,
        label_codes=codes,
        known_by_us=max(known, default=0),
        n_fraud=len(last) - len(genuine),
        n_genuine=len(genuine),
        genuine_sum=sum(genuine),
    )
