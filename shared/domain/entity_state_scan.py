"""Counts, sums and runs over ranges of entity state, as of a moment of knowledge.

Parts of the tree that lie inside a range give their sums; only tiles that an edge of the range cuts are looked into.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final

from shared.domain.entity_state_spans import Part, Span
from shared.domain.entity_state_tiles import Tile

_FRAUD_FLAGS: Final = bytes([code & 1 for code in range(256)])
"""From the lower bytes of label codes to whether they say fraud: many at once, for what one loop step costs."""

type Counts = tuple[int, int, int, int]
"""Events, known frauds, known genuine ones, and the sum of the amounts of these."""


def counts(
    parts: tuple[Part, ...], edges: Sequence[int], until_us: int, known_us: int, *, with_genuine: bool
) -> list[Counts]:
    """What lies between each edge and one end, in a single walk back in time.

    Args:
        parts: Parts of the tree, in order of time.
        edges: Falling; for each the events later than it and no later than the end are counted.
        until_us: The end, not before the first edge.
        known_us: Labels known by then count.
        with_genuine: Whether genuine ones are wanted, which only single events can tell where an edge cuts a tile.

    Returns:
        One for each edge; genuine ones may be missing from it if they are not wanted.
    """
    found: list[Counts] = []
    n_events = n_fraud = n_genuine = genuine_sum = 0
    n_found, edge_us = 0, edges[0]
    waiting = list(parts)
    while waiting:
        part = waiting.pop()
        start_us = part.start_us
        if start_us > until_us:
            continue
        end_us = part.end_us
        while end_us <= edge_us + 1:
            found.append((n_events, n_fraud, n_genuine, genuine_sum))
            n_found += 1
            if n_found == len(edges):
                return found
            edge_us = edges[n_found]
        if edge_us < start_us and end_us <= until_us + 1:
            sums = part.recent
            if not sums[0] <= known_us < sums[1]:
                sums = part.as_of(known_us)
            _, _, events, frauds, genuine, amount = sums
            n_events += events
            n_fraud += frauds
            n_genuine += genuine
            genuine_sum += amount
            continue
        if isinstance(part, Span):
            waiting += part.parts
            continue
        times = part.times
        high = bisect_right(times, until_us) if until_us < end_us else len(times)
        is_cut = edge_us >= start_us
        while True:
            low = bisect_right(times, edge_us, 0, high) if is_cut else 0
            n_events += high - low
            if low < high:
                frauds, genuine, amount = _verdicts(part, low, high, known_us, with_genuine=with_genuine)
                n_fraud += frauds
                n_genuine += genuine
                genuine_sum += amount
            if not is_cut:
                break
            found.append((n_events, n_fraud, n_genuine, genuine_sum))
            n_found += 1
            if n_found == len(edges):
                return found
            edge_us, high = edges[n_found], low
            is_cut = edge_us >= start_us
    return found + [(n_events, n_fraud, n_genuine, genuine_sum)] * (len(edges) - n_found)


def _verdicts(tile: Tile, low: int, high: int, known_us: int, *, with_genuine: bool) -> tuple[int, int, int]:
    """Known frauds among rows of a tile, known genuine ones, and the sum of their amounts."""
    since_us, _, n_events, n_fraud, n_genuine, _ = tile.sums
    n_labels = len(tile.code_bytes) // 2
    one_each = n_labels == n_fraud + n_genuine  # no row has a second label
    if one_each and not n_fraud and not with_genuine:
        return 0, 0, 0
    first, last = low, high
    if n_labels != n_events or not one_each:  # else labels are rows
        rows = tile.label_rows
        first, last = bisect_left(rows, low), bisect_left(rows, high)
        if first == last:
            return 0, 0, 0
    amounts = tile.amounts
    if one_each and (known_us >= since_us or max(tile.label_known[first:last]) <= known_us):
        flags = tile.code_bytes[2 * first : 2 * last : 2].translate(_FRAUD_FLAGS) if n_fraud else b""
        fraud = flags.count(1)
        if not with_genuine:
            return fraud, 0, 0
        inside: Sequence[int] = amounts[low:high]
        if last - first < high - low:
            inside = [amounts[row] for row in tile.label_rows[first:last]]
        total, place = sum(inside), -1
        for _ in range(fraud):
            place = flags.index(1, place + 1)
            total -= inside[place]
        return fraud, last - first - fraud, total
    held = _held(tile, low, high, known_us)
    genuine = [amounts[row] for row, is_fraud in held.items() if not is_fraud]
    return len(held) - len(genuine), len(genuine), sum(genuine)


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
