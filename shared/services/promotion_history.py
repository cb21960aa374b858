"""Checks of what a challenger learnt from, against history: when, how mature, how much, and whether it is that."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.bundle import Bundle
from shared.domain.bundle_manifest import Manifest
from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.domain.evaluation import Outcomes
from shared.domain.feature_columns import LabelColumns, TransactionColumns
from shared.domain.instants import format_instant
from shared.domain.promotion import CheckName, GateRules, in_days
from shared.domain.promotion_evidence import labelled, learnt_until_us, places_of, spans_again
from shared.domain.training_model import Rows, data_digest
from shared.domain.training_split import TEST, TRAIN, targets_as_of
from shared.services.promotion_findings import Findings
from shared.services.promotion_model import OpenedModel
from shared.services.training import fitted_capacity, measure, rows_within

METRIC_TOLERANCE: Final = 1e-9
"""How far a claimed figure may lie from the one computed again: both are sums of the same numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """What is known, and of what it is judged.

    Attributes:
        transactions: Of all entities concerned.
        labels: All labels of them.
        as_of_us: What was known by then is used, microseconds since 1970 UTC.
        rules: By which a challenger is judged.
    """

    transactions: TransactionColumns
    labels: LabelColumns
    as_of_us: int
    rules: GateRules


def check_spans(
    history: History, challenger: Manifest, champion: Manifest | None, window: tuple[int, int], findings: Findings
) -> None:
    """Whether the spans lie apart, are mature and leave the judged window alone, and are newer than the champion's."""
    delay_us, rules = challenger.label.delay_us, history.rules
    required = "spans in order, a label delay apart, mature, known by now, and all learning before the judged window"
    problems = []
    spans = sorted(challenger.spans.items(), key=lambda item: item[1].start_us)
    if any(span.start_us >= span.end_us for _, span in spans):
        problems.append("a span is empty")
    for (earlier, before), (later, after) in pairwise(spans):
        if after.start_us - before.end_us < delay_us:
            problems.append(f"{later} begins {in_days(after.start_us - before.end_us)} after {earlier} ends")
    if spans and spans[0][0] != TRAIN:
        problems.append(f"{spans[0][0]} lies before {TRAIN}")
    if challenger.label.maturity_us < rules.maturity_us:
        problems.append(
            f"labels counted after {in_days(challenger.label.maturity_us)}, not {in_days(rules.maturity_us)}"
        )
    newest_us = max((span.end_us for _, span in spans), default=0)
    if newest_us > challenger.as_of_us - challenger.label.maturity_us + 1:
        problems.append("its newest span was not mature yet")
    if challenger.as_of_us > history.as_of_us:
        problems.append(f"it knows labels of {_day(challenger.as_of_us)}, which is yet to come")
    if window[0] >= window[1]:
        problems.append("it has learnt from the newest mature days, so nothing is left to judge it on")
    findings.add(
        CheckName.SEPARATION,
        not problems,
        required,
        "; ".join(problems)
        or f"learnt until {_day(learnt_until_us(challenger))}, judged from {_day(window[0])} to {_day(window[1])}",
    )
    if champion is not None:
        ours, theirs = learnt_until_us(challenger), learnt_until_us(champion)
        findings.add(
            CheckName.FRESHNESS,
            ours >= theirs and challenger.as_of_us >= champion.as_of_us,
            "learnt from rows and labels at least as new as the champion's",
            f"rows until {_day(ours)} and labels until {_day(challenger.as_of_us)}, the champion's until "
            f"{_day(theirs)} and {_day(champion.as_of_us)}",
        )


def check_labels(history: History, challenger: Manifest, window: tuple[int, int], findings: Findings) -> None:
    """Whether labels follow their transactions, and are there for nearly all of them."""
    labels, time_us = history.labels, history.transactions.event_time_us
    early = int(np.count_nonzero(labels.known_at_us < time_us[labels.row]))
    findings.add(
        CheckName.LABEL_TIMES,
        early == 0,
        "no label known before its transaction",
        f"{early:,} of {len(labels.row):,} labels were known before their transaction took place",
        value=float(early),
    )
    then = targets_as_of(len(time_us), labels, challenger.as_of_us).known
    now = targets_as_of(len(time_us), labels, history.as_of_us).known
    parts = labelled(
        history.transactions, then, {name: (span.start_us, span.end_us) for name, span in challenger.spans.items()}
    ) + labelled(history.transactions, now, {"judged window": window})
    least = min(parts, key=lambda part: part.share)
    findings.add(
        CheckName.COVERAGE,
        least.share >= history.rules.min_labelled,
        f"at least {history.rules.min_labelled:g} of the transactions of every span",
        ", ".join(f"{part.name} {part.share:.1%} of {part.n_rows:,}" for part in parts),
        value=least.share,
    )


def check_data(history: History, bundle: Bundle, vectors: NDArray[np.float32], findings: Findings) -> dict[str, Rows]:
    """Whether features and outcomes of the spans, cut again from history, are what it was trained on.

    Args:
        history: What is known.
        bundle: The challenger.
        vectors: (n, n_features) float32, of all transactions, as each could know them.
        findings: Where the check goes.

    Returns:
        The rows of each span, by history.
    """
    manifest = bundle.manifest
    targets = targets_as_of(len(vectors), history.labels, manifest.as_of_us)
    places, counted = spans_again(history.transactions, targets, manifest.spans)
    rows = {name: Rows(vectors[found], targets.is_fraud[found]) for name, found in places.items()}
    problems = [
        f"{name} holds {counted[name].n_rows:,} labelled rows with {counted[name].n_frauds:,} frauds, the manifest "
        f"says {span.n_rows:,} with {span.n_frauds:,}"
        for name, span in manifest.spans.items()
        if span != counted[name]
    ]
    again = data_digest(rows)
    if not problems and again != manifest.data_digest:
        problems.append(f"the counts agree, but the digest is {again[:12]}, not {manifest.data_digest[:12]}")
    findings.add(
        CheckName.DATA,
        not problems,
        "the rows, outcomes and features that history gives by then, by their digest",
        "; ".join(problems) or f"{sum(len(part.is_fraud) for part in rows.values()):,} rows, digest {again[:12]}",
    )
    return rows


def check_metrics(
    history: History, model: OpenedModel, rows: dict[str, Rows], vectors: NDArray[np.float32], findings: Findings
) -> None:
    """Whether the figures that the manifest claims come out again, and its shadow price.

    Args:
        history: All that is known.
        model: The challenger.
        rows: By span, the rows that it learnt from.
        vectors: (n, n_features) float32, the features of all transactions.
        findings: Where the check goes.
    """
    manifest = model.bundle.manifest
    required = "every figure and interval of the manifest, computed again from history"
    try:
        span = manifest.spans[TEST]
        targets = targets_as_of(len(history.transactions.event_time_us), history.labels, manifest.as_of_us)
        places = places_of(history.transactions, targets.known, span.start_us, span.end_us)
        outcomes = Outcomes(
            history.transactions.event_time_us[places], history.transactions.customer[places], rows[TEST].is_fraud
        )
        seed = int(manifest.parameters["seed"])
        raw = model.graph.raw(rows[TEST].vectors)
        _, again = measure(outcomes, raw, manifest.calibration, manifest.thresholds, seed)
        problems = _wrong_price(history, model, vectors)
    except (BrokenInvariant, InvalidInput, KeyError, ValueError) as error:
        findings.add(CheckName.METRICS, False, required, f"they cannot be computed again: {error}")
        return
    computed = {metric.name: metric for metric in again}
    claimed = {metric.name: metric for metric in manifest.metrics}
    problems += [f"{name} is not claimed" for name in sorted(computed.keys() - claimed.keys())]
    problems += [f"{name} cannot be computed" for name in sorted(claimed.keys() - computed.keys())]
    worst = 0.0
    for name in sorted(claimed.keys() & computed.keys()):
        for what in ("value", "low", "high"):
            ours, theirs = getattr(computed[name], what), getattr(claimed[name], what)
            difference = abs(ours - theirs)
            worst = max(worst, difference)
            if not difference <= METRIC_TOLERANCE:
                problems.append(f"{name} ({what}) is {ours:.4f}, the manifest claims {theirs:.4f}")
    findings.add(
        CheckName.METRICS,
        not problems,
        required,
        "; ".join(problems) or f"{len(claimed)} figures come out again on {len(rows[TEST].is_fraud):,} rows",
        value=worst,
    )


def _wrong_price(history: History, model: OpenedModel, vectors: NDArray[np.float32]) -> list[str]:
    """What is wrong with the shadow price: one too low floods those who review, one too high reviews nothing."""
    claimed, span = model.bundle.manifest.capacity, model.bundle.manifest.spans[TEST]
    if claimed is None:
        return []
    inside = rows_within(history.transactions, span)
    _, probability = model.scores(vectors[inside])
    again = fitted_capacity(claimed.capacity, probability, history.transactions.amount_minor[inside], span)
    ours, theirs = again.policy.shadow_price_minor, claimed.policy.shadow_price_minor
    if ours == theirs:
        return []
    per_day = claimed.capacity.reviews_per_day
    return [f"the shadow price for {per_day} reviews a day is {ours}, the manifest claims {theirs}"]


def _day(time_us: int) -> str:
    """The day of an instant; what no calendar holds, a manifest may say all the same."""
    try:
        return format_instant(time_us)[:10]
    except (ValueError, OverflowError):
        return str(time_us)
