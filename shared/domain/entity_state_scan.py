"""Counts, sums and runs over ranges of entity state, as of a moment of knowledge.

Parts of the tree that lie inside a range give their sums; only tiles that an edge of the range cuts are looked into.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final

from shared.domain.entity_state_spans import Part, Span
from shared.domain.entity_state_tiles import FOREVER_US, Tile

_FRAUD_FLAGS: Final = bytes([code & 1 for code in range(256)])
"""From the lower bytes of label codes to whether they say fraud: many at once, for what one loop step costs."""

type Counts = tuple[int, int, int, int]
"""Events, known frauds, known genuine ones, and the sum of the amounts of these."""

type Edge = tuple[int, bool]
"""Where a window starts: events later than this are in it; and whether genuine ones are counted too, which costs a look
at single amounts."""


def counts(parts: tuple[Part, ...], edges: Sequence[Edge], until_us: int, known_us: int) -> list[Counts]:
    """What lies between each edge and one end, in a single walk back in time.

    Args:
        parts: Parts of the tree, in order of time.
        edges: At least one, falling.
        until_us: The end, not before the first edge; events no later than this are counted.
        known_us: Labels known by then count.

    Returns:
        One for each edge; without genuine ones where these are not wanted.
    """
    found: list[Counts] = []
    n_events = n_fraud = n_genuine = genuine_sum = 0
    coming = iter(edges)
    after_us, wants_genuine = next(coming)
    any_genuine = any(wants for _, wants in edges)
    waiting, next_us = list(parts), FOREVER_US
    while waiting:
        part = waiting.pop()
        # A part ends where the next one starts, or earlier: to ask it for its end would touch memory once more.
        start_us, ends_before_us = part.start_us, next_us
        next_us = start_us
        if start_us > until_us:
            continue
        if after_us < start_us and ends_before_us <= until_us + 1:
            sums = part.recent
            if not sums[0] <= known_us < sums[1]:
                sums = part.as_of(known_us)
            n_events += sums[2]
            n_fraud += sums[3]
            if any_genuine:
                n_genuine += sums[4]
                genuine_sum += sums[5]
            continue
        if isinstance(part, Span):
            waiting += part.parts
            next_us = ends_before_us
            continue
        times = part.times
        high = top = bisect_right(times, until_us) if ends_before_us > until_us + 1 else len(times)
        _, _, _, may_be_fraud, genuine, _ = part.sums
        may_be_fraud = may_be_fraud or len(part.code_bytes) != 2 * genuine
        while True:
            is_cut = after_us >= start_us
            low = bisect_right(times, after_us, 0, high) if is_cut else 0
            n_events += high - low
            if may_be_fraud and low < high:
                n_fraud += _frauds(part, low, high, known_us)
            high = low
            if (wants_genuine if is_cut else any_genuine) and low < top:
                genuine, amount = _genuine(part, low, top, known_us)
                n_genuine += genuine
                genuine_sum += amount
                top = low
            if not is_cut:
                break
            found.append((n_events, n_fraud, n_genuine, genuine_sum))
            if len(found) == len(edges):
                return found
            after_us, wants_genuine = next(coming)
    return found + [(n_events, n_fraud, n_genuine, genuine_sum)] * (len(edges) - len(found))


def _frauds(tile: Tile, low: int, high: int, known_us: int) -> int:
    """Known frauds among rows of a tile."""
    since_us, _, n_events, n_fraud, n_genuine, _ = tile.sums
    first, last = low, high
    if tile.n_labels != n_events or n_fraud + n_genuine != n_events:  # else labels are rows
        rows = tile.label_rows
        first, last = bisect_left(rows, low), bisect_left(rows, high)
    flags = tile.code_bytes[2 * first : 2 * last : 2].translate(_FRAUD_FLAGS)
    if not flags.count(1):
        return 0
    if n_fraud + n_genuine == tile.n_labels and _all_known(tile, first, last, since_us, known_us):
        return flags.count(1)
    return sum(_held(tile, low, high, known_us).values())


def _genuine(tile: Tile, low: int, high: int, known_us: int) -> tuple[int, int]:
    """Known genuine ones among rows of a tile, and the sum of their amounts."""
    since_us, _, n_events, n_fraud, n_genuine, _ = tile.sums
    amounts = tile.amounts
    if n_genuine + n_fraud == n_events == tile.n_labels and _all_known(tile, low, high, since_us, known_us):
        inside = amounts[low:high]  # labels are rows
        count, total = high - low, sum(inside)
        if n_fraud:
            flags, place = tile.code_bytes[2 * low : 2 * high : 2].translate(_FRAUD_FLAGS), -1
            for _ in range(flags.count(1)):
                place = flags.index(1, place + 1)
                count, total = count - 1, total - inside[place]
        return count, total
    genuine = [amounts[row] for row, is_fraud in _held(tile, low, high, known_us).items() if not is_fraud]
    return len(genuine), sum(genuine)


def _all_known(tile: Tile, first: int, last: int, since_us: int, known_us: int) -> bool:
    """Whether these labels, one at least, are known; all of the tile are once `since_us` has passed."""
    return known_us >= since_us or max(tile.label_known[first:last]) <= known_us


def fraud_run(parts: tuple[Part, ...], after_us: int, until_us: int, known_us: int) -> tuple[float, int, int]:
    """The last verdict in a range (NaN without one), the length of the run of frauds that ends there, and its begin.

    A run reaches back to the last genuine event; parts without one are not looked into, and nothing before it is.

    Args:
        parts: Parts of the tree, in order of time.
        after_us: Events later than this count.
        until_us: And no later than this.
        known_us: Labels known by then count.
    """
    length, began_us = 0, 0
    first: Part | None = None  # the earliest part with frauds, if it was not looked into
    waiting = list(parts)
    while waiting:
        part = waiting.pop()
        if part.start_us > until_us:
            continue
        if part.end_us <= after_us + 1:
            break
        if part.start_us > after_us and part.end_us <= until_us + 1:
            found = part.as_of(known_us)
            if not found.n_genuine:
                if found.n_fraud:
                    length, first = length + found.n_fraud, part
                continue
        if isinstance(part, Span):
            waiting += part.parts
            continue
        times, rows, known, codes = part.times, part.label_rows, part.label_known, part.label_codes
        seen = -1
        at = bisect_left(rows, bisect_right(times, until_us)) if until_us < part.end_us else len(rows)
        while at:
            at -= 1
            row = rows[at]
            if times[row] <= after_us:
                break
            if row == seen or known[at] > known_us:
                continue  # a stronger label of the row holds, or this one is not known yet
            if not codes[at] & 1:
                return _run(length, first, began_us, known_us)
            seen, length, first, began_us = row, length + 1, None, times[row]
    return _run(length, first, began_us, known_us) if length else (math.nan, 0, 0)


def _run(length: int, first: Part | None, began_us: int, known_us: int) -> tuple[float, int, int]:
    """The run, whose first fraud is also the first of a part if that was not looked into."""
    while first is not None:
        if isinstance(first, Span):
            first = next(part for part in first.parts if part.as_of(known_us).n_fraud)
            continue
        held = _held(first, 0, len(first.times), known_us)
        began_us = first.times[next(row for row in held if held[row])]
        first = None
    return (1.0 if length else 0.0), length, began_us


def _held(tile: Tile, low: int, high: int, known_us: int) -> dict[int, int]:
    """Of the rows from low to high that have a known label, whether it says fraud, 1 or 0; in order of rows."""
    rows = tile.label_rows
    first, last = bisect_left(rows, low), bisect_left(rows, high)
    labels = zip(rows[first:last], tile.label_known[first:last], tile.label_codes[first:last], strict=True)
    # Within a row labels rise in strength with known-at, so a later entry replaces an earlier one.
    return {row: code & 1 for row, at, code in labels if at <= known_us}
