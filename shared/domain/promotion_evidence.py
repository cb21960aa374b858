"""What a bundle was trained on, cut again from history: rows of its spans, and how much of them was labelled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.domain.bundle_manifest import Manifest, Span
from shared.domain.feature_columns import TransactionColumns
from shared.domain.instants import US_PER_DAY
from shared.domain.promotion import GateRules
from shared.domain.training_split import TEST, Targets

type Places = NDArray[np.intp]


class Labelled(NamedTuple):
    """How much of a span has a label.

    Attributes:
        name: Of the span.
        share: Of its transactions.
        n_rows: Transactions in it, with a label or without.
    """

    name: str
    share: float
    n_rows: int


def learnt_until_us(manifest: Manifest) -> int:
    """The first microsecond after everything that a model learnt from: of all spans but the test span."""
    return max(span.end_us for name, span in manifest.spans.items() if name != TEST)


def window_of(manifests: tuple[Manifest, ...], newest_us: int, as_of_us: int, rules: GateRules) -> tuple[int, int]:
    """The judged window: the newest mature days from which no model has learnt, and that lie a label delay behind it.

    Args:
        manifests: Of the challenger and the champion.
        newest_us: The newest event time with a label, microseconds since 1970 UTC.
        as_of_us: What is known by then is used, the same.
        rules: How mature, how long.

    Returns:
        Its start and the first microsecond after it; a start that is not before the end means that there is none.
    """
    end_us = (min(newest_us, as_of_us - rules.maturity_us) + 1) // US_PER_DAY * US_PER_DAY
    behind = max(learnt_until_us(manifest) + manifest.label.delay_us for manifest in manifests)
    return max(behind, end_us - rules.window_days * US_PER_DAY), end_us


def places_of(transactions: TransactionColumns, known: NDArray[np.bool_], start_us: int, end_us: int) -> Places:
    """The rows of a span that have a label, ordered by event time and id."""
    time_us = transactions.event_time_us
    inside = np.flatnonzero(known & (time_us >= start_us) & (time_us < end_us))
    return inside[np.lexsort((transactions.transaction_id[inside], time_us[inside]))]


def spans_again(
    transactions: TransactionColumns, targets: Targets, spans: Mapping[str, Span]
) -> tuple[dict[str, Places], dict[str, Span]]:
    """The rows that spans hold by history, and what the manifest should say of them."""
    places = {name: places_of(transactions, targets.known, span.start_us, span.end_us) for name, span in spans.items()}
    counted = {
        name: Span(span.start_us, span.end_us, len(places[name]), int(targets.is_fraud[places[name]].sum()))
        for name, span in spans.items()
    }
    return places, counted


def labelled(
    transactions: TransactionColumns, known: NDArray[np.bool_], spans: Mapping[str, tuple[int, int]]
) -> tuple[Labelled, ...]:
    """How much of each span has a label; an empty span has none."""
    time_us = transactions.event_time_us
    found = []
    for name, (start_us, end_us) in spans.items():
        inside = (time_us >= start_us) & (time_us < end_us)
        n_rows = int(inside.sum())
        found.append(Labelled(name, float(known[inside].mean()) if n_rows else 0.0, n_rows))
    return tuple(found)


def first_seen_us(keys: NDArray[np.generic], time_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) the first event time of each row's entity."""
    code = np.unique(keys, return_inverse=True)[1]
    first = np.full(int(code.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, code, time_us)
    return first[code]
