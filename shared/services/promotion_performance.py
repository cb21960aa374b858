"""Checks of what a challenger achieves on the judged window, alone and beside the champion; what stands in its way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.domain.evaluation import Outcomes, Ranking
from shared.domain.instants import US_PER_DAY
from shared.domain.promotion import Ceiling, CheckName, FrontierPoint, GateRules, Window, in_days
from shared.domain.promotion_comparison import Judged, Scores, compare, segments_of
from shared.domain.promotion_evidence import first_seen_us
from shared.domain.promotion_figures import (
    area_under_curve,
    calibration_slope,
    ceilings_of,
    frontier_of,
    operating_figures,
    reaching,
)
from shared.services.promotion_findings import Findings
from shared.services.promotion_history import History

FASTER_US: Final = (3 * US_PER_DAY, US_PER_DAY, 0)
"""Label delays that are held against the real one."""

type Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Performance:
    """What the window shows besides checks.

    Attributes:
        frontier: What thresholds would achieve.
        ceilings: What labels allow for.
        threshold: The least that reaches both floors; None if none does.
    """

    frontier: tuple[FrontierPoint, ...]
    ceilings: tuple[Ceiling, ...]
    threshold: float | None


def judged_window(
    history: History, places: NDArray[np.intp], is_fraud: NDArray[np.bool_], ends: tuple[int, int], findings: Findings
) -> tuple[Window, Judged] | None:
    """The window's transactions; None if there are too few frauds to say anything."""
    transactions, rules = history.transactions, history.rules
    judged = Judged(
        transactions.event_time_us[places],
        transactions.customer[places],
        transactions.amount_minor[places],
        is_fraud[places],
    )
    n_frauds = int(judged.is_fraud.sum())
    window = Window(*ends, len(places), n_frauds, len(np.unique(judged.customer)))
    enough = findings.add(
        CheckName.EVIDENCE,
        min(n_frauds, len(places) - n_frauds) >= rules.min_frauds and window.days >= rules.min_window_days,
        f"at least {rules.min_frauds} frauds with a mature label and as many genuine transactions, in at least "
        f"{rules.min_window_days} days",
        f"{n_frauds:,} frauds among {len(places):,} transactions of {window.n_customers:,} customers in "
        f"{max(window.days, 0.0):.1f} days",
        value=float(n_frauds),
    )
    return (window, judged) if enough else None


def check_selection(
    rules: GateRules, known: NDArray[np.bool_], suspicious: NDArray[np.bool_], findings: Findings
) -> None:
    """Whether what models would decline has outcomes too: what was blocked has none by itself (record 0005).

    Args:
        rules: How many of them must.
        known: (n,) whether each transaction of the window has a label.
        suspicious: (n,) whether a model would decline it.
        findings: Where the check goes.
    """
    least = rules.min_labelled_suspicious
    n_rows = int(suspicious.sum())
    share = float(known[suspicious].mean()) if n_rows else 0.0
    others = float(known[~suspicious].mean()) if n_rows < len(known) else 0.0
    findings.add(
        CheckName.SELECTION,
        n_rows > 0 and share >= least,
        f"at least {least:g} of those that would be declined have an outcome",
        f"{share:.1%} of {n_rows:,} that a model would decline have an outcome, {others:.1%} of the others"
        if n_rows
        else "no transaction of the window would be declined, so nothing can be said",
        value=share,
    )


def check_canaries(
    judged: Judged, raw: NDArray[Any], features: dict[str, NDArray[Any]], rules: GateRules, findings: Findings
) -> None:
    """Whether anything is better than it can be: such figures come from leaks, not from models."""
    quality = Ranking(Outcomes(judged.event_time_us, judged.customer, judged.is_fraud), raw).quality()
    findings.add(
        CheckName.TOO_GOOD,
        quality.auc <= rules.max_auc and quality.average_precision <= rules.max_average_precision,
        f"AUC at most {rules.max_auc:g}, average precision at most {rules.max_average_precision:g}",
        f"AUC {quality.auc:.4f}, average precision {quality.average_precision:.4f}",
        value=quality.auc,
    )
    areas = {name: area_under_curve(values, judged.is_fraud) for name, values in features.items()}
    name, area = max(areas.items(), key=lambda item: max(item[1], 1.0 - item[1]))
    strength = max(area, 1.0 - area)
    findings.add(
        CheckName.SINGLE_FEATURE,
        strength <= rules.max_feature_auc,
        f"no feature by itself with an AUC above {rules.max_feature_auc:g}",
        f"{name} by itself has {strength:.4f}",
        value=strength,
    )


def check_probabilities(
    judged: Judged, probability: Floats, threshold: float, rules: GateRules, findings: Findings
) -> None:
    """Whether scores are probabilities, and the floors at the bundle's own threshold."""
    slope = calibration_slope(probability, judged.is_fraud, judged.customer)
    findings.add(
        CheckName.SLOPE,
        rules.slope_low <= slope.value <= rules.slope_high,  # NaN fails too
        f"{rules.slope_low:g} to {rules.slope_high:g}",
        "slope of outcomes over the log-odds of scores; below 1 they claim too much, above too little",
        value=slope.value,
        ends=slope.ends,
    )
    found = operating_figures(
        probability, judged.is_fraud, judged.customer, threshold, n_resamples=rules.resamples, seed=rules.seed
    )
    findings.add(
        CheckName.SKILL,
        found.brier_skill.ends.low > 0.0,
        "lower end above 0",
        "share of the squared error of always saying the share of frauds that scores save",
        value=found.brier_skill.value,
        ends=found.brier_skill.ends,
    )
    for name, figure, least in (
        (CheckName.RECALL, found.recall, rules.min_recall),
        (CheckName.PRECISION, found.precision, rules.min_precision),
    ):
        findings.add(
            name,
            figure.value >= least,
            f"at least {least:g}",
            f"declining from {threshold:.4f} on, the bundle's own threshold",
            value=figure.value,
            ends=figure.ends,
        )


def check_comparison(
    history: History, places: NDArray[np.intp], judged: Judged, scores: tuple[Scores, Scores], findings: Findings
) -> None:
    """Whether it beats the champion, costs no more, and is worse nowhere.

    Args:
        history: What is known.
        places: Rows of the window.
        judged: The same rows, as they are judged.
        scores: The challenger's, and the champion's.
        findings: Where the checks go.
    """
    known = history.transactions
    since = (first_seen_us(keys, known.event_time_us)[places] for keys in (known.customer, known.terminal))
    comparison = compare(judged, *scores, segments_of(judged, *since), history.rules)
    for check in comparison.checks(history.rules):
        findings.put(check)


def performance_of(
    history: History, window: Window, frauds: NDArray[np.intp], judged: Judged, probability: Floats, *, delay_us: int
) -> Performance:
    """What thresholds and labels allow for, and what would move it.

    Args:
        history: What is known.
        window: On which it was judged.
        frauds: Rows of its frauds.
        judged: Its transactions.
        probability: (n,) float64, the challenger's scores of them.
        delay_us: After how long a label counts for its features, microseconds.
    """
    rules = history.rules
    frontier = frontier_of(probability, judged.is_fraud, window.days, rules.min_precision)
    precise = reaching(probability, judged.is_fraud, 0.0, rules.min_precision)
    found = probability[judged.is_fraud] >= (np.inf if precise is None else precise)
    delays = (delay_us, *(faster for faster in FASTER_US if faster < delay_us))
    ceilings = ceilings_of(history.transactions, history.labels, frauds, found, delays)
    both = reaching(probability, judged.is_fraud, rules.min_recall, rules.min_precision)
    return Performance(frontier, ceilings, both)


def advice_of(performance: Performance, rules: GateRules) -> tuple[str, ...]:
    """What would move a challenger that misses the floors, in sentences."""
    if performance.threshold is not None:
        return (
            f"Declining from {performance.threshold:.4f} on reaches both floors on this window; the bundle's threshold "
            "does not.",
        )
    frontier, (real, *faster) = performance.frontier, performance.ceilings
    precise = next((point for point in reversed(frontier) if point.precision >= rules.min_precision), None)
    wide = next((point for point in frontier if point.recall >= rules.min_recall), None)
    found = [
        f"No threshold reaches recall {rules.min_recall:g} at precision {rules.min_precision:g} on this window: "
        + ("none has that precision." if precise is None else f"at that precision recall is {precise.recall:.3f}.")
    ]
    if wide is not None:
        found.append(
            f"Recall {wide.recall:.3f} comes at precision {wide.precision:.3f}, with {wide.alerts_per_day:.1f} "
            "transactions a day: it takes a capacity of as many reviews."
        )
    found.append(
        f"Of the frauds, {real.with_evidence:.1%} are at a customer or terminal of which a fraud was known in time "
        f"(labels count after {in_days(real.label_delay_us)}). Were all of these found, and of the others "
        f"as many as now ({real.found_without:.1%}), recall would be {real.recall:.3f}."
    )
    found += [
        f"With labels that count after {in_days(ceiling.label_delay_us)} it would be "
        f"{ceiling.with_evidence:.1%} of the frauds, and that recall {ceiling.recall:.3f}."
        for ceiling in faster
    ]
    return tuple(found)
