"""Tiles: ranges of event time that hold an entity's transactions and their labels, as columns of integers.

A tile is a range of the dyadic grid below `ROOT_WIDTH_US`, aligned to 1970: a range that holds more than `MAX_EVENTS`
transactions is halved, down to `MIN_WIDTH_US`. So which tiles there are follows from the set of transactions alone.

A tile keeps its columns as the bytes that are stored: to read a tile, to add to it and to write it copies bytes and
converts nothing, and whoever looks into a column does so through a view of its bytes. Beside them are sums over its
transactions and labels: a reader whose window covers a whole tile takes these and looks at no single event. They are
what the columns say, never more.

Of the labels of one transaction only those are kept that can ever hold: one that becomes known no earlier than
another and is no stronger never does. The rest, sorted by known-at, rise in strength too, so that at any time the last
that counts is the one that holds. What is kept follows from the set of labels, whatever their order.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple

from shared.domain.features import PastTransaction
from shared.domain.labels import PRECEDENCE, Label

ROOT_WIDTH_US: Final = 1 << 41
"""Widest tile, microseconds: 25.45 days. State ends at a multiple of it; a power of two halves without a remainder."""

MIN_WIDTH_US: Final = 1 << 16
"""Narrowest tile, 66 ms in microseconds: it holds more than `MAX_EVENTS` only where one instant, or a rate above a
thousand a second, leaves no choice."""

MAX_EVENTS: Final = 64
"""A wider tile with more transactions is halved (measured: the least write-ahead log, facts of the decide core)."""

NEVER_US: Final = -(1 << 63)
FOREVER_US: Final = (1 << 63) - 1
"""Before and after every time there is."""

NARROW_MAX: Final = (1 << 32) - 1
"""Greatest amount that 4 bytes hold; a tile with a greater one has 8 bytes for each."""

_TIME: Final = struct.Struct("<q")
_NARROW: Final = struct.Struct("<I")
_ROW: Final = struct.Struct("<I")
_CODE: Final = struct.Struct("<H")
_SEPARATOR: Final = b"\n"
_STRENGTH_BITS: Final = 8
"""A label's code: its source above these bits, then 7 bits of confidence and one of fraud."""

_SOURCE_CODES: Final = {source: place << _STRENGTH_BITS for place, source in enumerate(PRECEDENCE)}

SPANNED_BELOW_US: Final = ROOT_WIDTH_US >> 4
"""Narrower tiles lie in spans, see `entity_state_spans`."""

_TILE_MEMORY: Final = 700
_LABELS_MEMORY: Final = 260
_SPANS_MEMORY: Final = 300
"""Bytes that a tile takes in memory beside its columns; those that it takes besides if it has labels, which are three
more columns, and sums of its own; and its share of the spans that it lies in (CPython 3.13, measured, rather too much).
"""

type Column = memoryview[int]
"""Integers seen in the bytes of a column, without a copy; on little-endian machines, like all of this."""


class Sums(NamedTuple):
    """What labels say of some events, for a span of moments of knowledge.

    Attributes:
        since_us: First moment for which it holds, microseconds since 1970 UTC.
        until_us: First later moment for which it no longer does, because one more label is known.
        n_events: Events, labelled or not.
        n_fraud: Events whose label is fraud.
        n_genuine: Events whose label is genuine.
        genuine_sum: Sum of the amounts of these, minor units.
    """

    since_us: int = NEVER_US
    until_us: int = FOREVER_US
    n_events: int = 0
    n_fraud: int = 0
    n_genuine: int = 0
    genuine_sum: int = 0


NOTHING: Final = Sums()


class Tile:
    """One range of an entity's events; a value: what looks like a change makes another tile.

    Attributes:
        start_us: Start of the range, microseconds since 1970 UTC; a multiple of its width.
        end_us: First microsecond behind the range.
        sums: What its labels say once all of them are known.
        recent: What they say at the moment last asked for.
        time_bytes: Event times in the order of events (event time, then id), 8 bytes each.
        amount_bytes: Minor units by row, 4 bytes each, or 8 if one does not fit.
        ids: Transaction ids by row, a line feed after each.
        row_bytes: The row of each label, ascending, 4 bytes each.
        known_bytes: When each label became known, ascending within a row, 8 bytes each.
        code_bytes: Source, confidence and verdict of each label, see `label_code`, 2 bytes each.
    """

    __slots__ = (
        "amount_bytes",
        "code_bytes",
        "end_us",
        "ids",
        "known_bytes",
        "recent",
        "row_bytes",
        "start_us",
        "sums",
        "time_bytes",
    )

    def __init__(
        self,
        start_us: int,
        end_us: int,
        *,
        sums: Sums = NOTHING,
        time_bytes: bytes = b"",
        amount_bytes: bytes = b"",
        ids: bytes = b"",
        row_bytes: bytes = b"",
        known_bytes: bytes = b"",
        code_bytes: bytes = b"",
    ) -> None:
        self.start_us = start_us
        self.end_us = end_us
        self.sums = self.recent = sums
        self.time_bytes = time_bytes
        self.amount_bytes = amount_bytes
        self.ids = ids
        self.row_bytes = row_bytes
        self.known_bytes = known_bytes
        self.code_bytes = code_bytes

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Tile) and self._value() == other._value())

    def __hash__(self) -> int:
        return hash((self.start_us, self.end_us, self.ids))

    def __repr__(self) -> str:
        labels = list(zip(self.label_rows, self.label_known, self.label_codes, strict=True))
        return f"Tile({self.start_us}, {self.end_us}, {list(self.times)}, {list(self.amounts)}, {self.ids!r}, {labels})"

    @property
    def times(self) -> Column:
        """Event times by row, microseconds since 1970 UTC."""
        return memoryview(self.time_bytes).cast("q")

    @property
    def amounts(self) -> Column:
        """Amounts by row, minor units."""
        is_narrow = len(self.amount_bytes) < len(self.time_bytes)
        return memoryview(self.amount_bytes).cast("I" if is_narrow else "q")

    @property
    def label_rows(self) -> Column:
        """The row of each label."""
        return memoryview(self.row_bytes).cast("I")

    @property
    def label_known(self) -> Column:
        """When each label became known, microseconds since 1970 UTC."""
        return memoryview(self.known_bytes).cast("q")

    @property
    def label_codes(self) -> Column:
        """Source, confidence and verdict of each label."""
        return memoryview(self.code_bytes).cast("H")

    @property
    def n_labels(self) -> int:
        """Labels in it."""
        return len(self.code_bytes) // 2

    @property
    def n_bytes(self) -> int:
        """About what it takes in memory."""
        return (
            _TILE_MEMORY
            + (_LABELS_MEMORY if self.code_bytes else 0)
            + (_SPANS_MEMORY if self.end_us - self.start_us < SPANNED_BELOW_US else 0)
            + len(self.time_bytes)
            + len(self.amount_bytes)
            + len(self.ids)
            + len(self.row_bytes)
            + len(self.known_bytes)
            + len(self.code_bytes)
        )

    def as_of(self, known_us: int) -> Sums:
        """What its labels that were known at a moment say."""
        found = self.recent
        if not found.since_us <= known_us < found.until_us:
            found = self.sums if known_us >= self.sums.since_us else _counted(self, known_us)
            self.recent = found
        return found

    def _value(self) -> tuple[object, ...]:
        """All that makes it another tile."""
        return (
            self.start_us,
            self.end_us,
            self.sums,
            self.time_bytes,
            self.amount_bytes,
            self.ids,
            self.row_bytes,
            self.known_bytes,
            self.code_bytes,
        )


def label_code(label: Label) -> int:
    """Source, confidence and verdict as one integer of 16 bits.

    >>> from shared.domain.labels import LabelSource, Verdict
    >>> label_code(Label("t", Verdict.FRAUD, LabelSource.CHARGEBACK, 0, 0, 100, "bank"))
    1225
    """
    return _SOURCE_CODES[label.source] | label.confidence << 1 | label.is_fraud


def id_list(tile: Tile) -> list[str]:
    """The ids, by row."""
    return tile.ids.decode("ascii").split("\n")[:-1]


def place_of(tile: Tile, time_us: int, transaction_id: str) -> int:
    """How many of the tile's events come before this place in the order of events."""
    times = tile.times
    row = bisect_left(times, time_us)
    if row < len(times) and times[row] == time_us:
        ids = id_list(tile)
        while row < len(ids) and times[row] == time_us and ids[row] < transaction_id:
            row += 1
    return row


def row_of(tile: Tile, time_us: int, transaction_id: str) -> int | None:
    """The row of a transaction; None if the tile does not hold it."""
    wanted = transaction_id.encode("ascii") + _SEPARATOR
    if tile.ids.startswith(wanted):
        row = 0
    else:
        place = tile.ids.find(_SEPARATOR + wanted)
        if place < 0:
            return None
        row = tile.ids.count(_SEPARATOR, 0, place + 1)
    return row if tile.times[row] == time_us else None


def with_newest(tile: Tile, event: PastTransaction) -> Tile:
    """The tile with one more transaction, later than all it holds; its labels are not looked at."""
    amount = event.amount_minor
    since_us, until_us, n_events, n_fraud, n_genuine, genuine_sum = tile.sums
    if amount <= NARROW_MAX and len(tile.amount_bytes) == 4 * n_events:
        amount_bytes = tile.amount_bytes + _NARROW.pack(amount)
    else:
        amount_bytes = _amount_bytes([*tile.amounts, amount])
    return Tile(
        tile.start_us,
        tile.end_us,
        sums=Sums(since_us, until_us, n_events + 1, n_fraud, n_genuine, genuine_sum),
        time_bytes=tile.time_bytes + _TIME.pack(event.event_time_us),
        amount_bytes=amount_bytes,
        ids=tile.ids + event.transaction_id.encode("ascii") + _SEPARATOR,
        row_bytes=tile.row_bytes,
        known_bytes=tile.known_bytes,
        code_bytes=tile.code_bytes,
    )


def with_event(tile: Tile, event: PastTransaction) -> Tile | None:
    """The tile with one more transaction and its labels; None if it already holds it."""
    time_us, identifier = event.event_time_us, event.transaction_id
    times = tile.times
    if not times or time_us > times[-1]:  # nearly always: the newest event
        row = len(times)
        grown = with_newest(tile, event)
    else:
        row = place_of(tile, time_us, identifier)
        ids = id_list(tile)
        if row < len(times) and times[row] == time_us and ids[row] == identifier:
            return None
        amounts = tile.amounts.tolist()
        ids.insert(row, identifier)
        amounts.insert(row, event.amount_minor)
        since_us, until_us, n_events, n_fraud, n_genuine, genuine_sum = tile.sums
        grown = Tile(
            tile.start_us,
            tile.end_us,
            sums=Sums(since_us, until_us, n_events + 1, n_fraud, n_genuine, genuine_sum),
            time_bytes=tile.time_bytes[: 8 * row] + _TIME.pack(time_us) + tile.time_bytes[8 * row :],
            amount_bytes=_amount_bytes(amounts),
            ids=_id_bytes(ids),
            row_bytes=_row_bytes([at + (at >= row) for at in tile.label_rows]),
            known_bytes=tile.known_bytes,
            code_bytes=tile.code_bytes,
        )
    return with_labels(grown, row, event.labels) if event.labels else grown


def with_labels(tile: Tile, row: int, labels: Sequence[Label]) -> Tile:
    """The tile with labels of one row added; the same tile if none of them can ever hold."""
    rows, known, codes = tile.label_rows, tile.label_known, tile.label_codes
    low = bisect_left(rows, row)
    high = bisect_left(rows, row + 1, low)
    found = list(zip(known[low:high], codes[low:high], strict=True))
    kept = _that_can_hold([*found, *[(label.known_at_us, label_code(label)) for label in labels]])
    if kept == found:
        return tile
    known_bytes = tile.known_bytes[: 8 * low] + b"".join([_TIME.pack(at) for at, _ in kept])
    known_bytes += tile.known_bytes[8 * high :]
    code_bytes = tile.code_bytes[: 2 * low] + b"".join([_CODE.pack(code) for _, code in kept])
    code_bytes += tile.code_bytes[2 * high :]
    since_us, until_us, n_events, n_fraud, n_genuine, genuine_sum = tile.sums
    amount = tile.amounts[row]
    if found:
        since_us = max(memoryview(known_bytes).cast("q"))  # what overruled a label may have been known before it
        was_fraud = found[-1][1] & 1
        n_fraud -= was_fraud
        n_genuine -= not was_fraud
        genuine_sum -= 0 if was_fraud else amount
    else:
        since_us = max(since_us, kept[-1][0])
    is_fraud = kept[-1][1] & 1
    return Tile(
        tile.start_us,
        tile.end_us,
        sums=Sums(
            since_us,
            until_us,
            n_events,
            n_fraud + is_fraud,
            n_genuine + (not is_fraud),
            genuine_sum + (0 if is_fraud else amount),
        ),
        time_bytes=tile.time_bytes,
        amount_bytes=tile.amount_bytes,
        ids=tile.ids,
        row_bytes=tile.row_bytes[: 4 * low] + _ROW.pack(row) * len(kept) + tile.row_bytes[4 * high :],
        known_bytes=known_bytes,
        code_bytes=code_bytes,
    )


def halves(tile: Tile) -> Sequence[Tile]:
    """The tile as the tiles of its range that hold events: itself, or as often halved as its events demand."""
    if tile.sums.n_events <= MAX_EVENTS or tile.end_us - tile.start_us <= MIN_WIDTH_US:
        return (tile,)
    return _halved(tile, tile.start_us, tile.end_us, 0, tile.sums.n_events)


def _halved(tile: Tile, start_us: int, end_us: int, low: int, high: int) -> list[Tile]:
    """The tiles of a range within a tile whose rows in it are those from low to high."""
    if low == high:
        return []
    if high - low <= MAX_EVENTS or end_us - start_us <= MIN_WIDTH_US:
        return [_rows_of(tile, start_us, end_us, low, high)]
    middle_us = (start_us + end_us) // 2
    cut = bisect_left(tile.times, middle_us, low, high)
    return _halved(tile, start_us, middle_us, low, cut) + _halved(tile, middle_us, end_us, cut, high)


def _rows_of(tile: Tile, start_us: int, end_us: int, low: int, high: int) -> Tile:
    """The tile of a range that holds the rows from low to high."""
    rows = tile.label_rows
    first, last = bisect_left(rows, low), bisect_left(rows, high)
    part = Tile(
        start_us,
        end_us,
        sums=Sums(n_events=high - low),
        time_bytes=tile.time_bytes[8 * low : 8 * high],
        amount_bytes=_amount_bytes(tile.amounts[low:high].tolist()),
        ids=_id_bytes(id_list(tile)[low:high]),
        row_bytes=_row_bytes([row - low for row in rows[first:last]]),
        known_bytes=tile.known_bytes[8 * first : 8 * last],
        code_bytes=tile.code_bytes[2 * first : 2 * last],
    )
    part.sums = part.recent = _counted(part, FOREVER_US)
    return part


def _counted(tile: Tile, known_us: int) -> Sums:
    """What the labels known at a moment say, counted one by one."""
    since_us, until_us = NEVER_US, FOREVER_US
    held: dict[int, int] = {}
    for row, at, code in zip(tile.label_rows, tile.label_known, tile.label_codes, strict=True):
        if at <= known_us:
            held[row] = code  # within a row strength rises with known-at, so the last one holds
            since_us = max(since_us, at)
        else:
            until_us = min(until_us, at)
    amounts = tile.amounts
    genuine = [amounts[row] for row, code in held.items() if not code & 1]
    return Sums(since_us, until_us, tile.sums.n_events, len(held) - len(genuine), len(genuine), sum(genuine))


def _that_can_hold(labels: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of (known-at, code) those that hold at some time, by known-at."""
    if len(labels) == 1:
        return labels
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


def _amount_bytes(amounts: list[int]) -> bytes:
    """Amounts as a column, as narrow as they fit."""
    form = "q" if max(amounts) > NARROW_MAX else "I"
    return struct.pack(f"<{len(amounts)}{form}", *amounts)


def _row_bytes(rows: list[int]) -> bytes:
    """Rows of labels as a column."""
    return struct.pack(f"<{len(rows)}I", *rows)


def _id_bytes(ids: list[str]) -> bytes:
    """Ids as a column."""
    return "".join([f"{each}\n" for each in ids]).encode("ascii")
