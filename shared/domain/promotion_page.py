"""A verdict as a page: what was checked, what thresholds would achieve, what would move it; one file by itself."""

from __future__ import annotations

from html import escape
from typing import Final

from shared.domain.instants import format_instant
from shared.domain.promotion import Check, FrontierPoint, Verdict, in_days, verdict_digest, write_verdict

_STYLE: Final = """
:root { color-scheme: light dark; --line: #c9ced6; --soft: #f3f5f8; --good: #17693a; --bad: #b3261e; --ink: #1c2330; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3a4250; --soft: #1d222b; --good: #62c98d; --bad: #ff8a80; --ink: #e4e8ef; }
  body { background: #12161d; }
}
body { color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1160px; padding: 24px 20px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 32px 0 8px; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: 7px 10px; text-align: left; vertical-align: top; }
th { background: var(--soft); font-weight: 600; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.number { text-align: right; }
td.why { overflow-wrap: anywhere; }
.passed { color: var(--good); font-weight: 600; } .failed { color: var(--bad); font-weight: 600; }
code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; }
dl { display: grid; gap: 2px 16px; grid-template-columns: max-content 1fr; margin: 12px 0; }
dt { font-weight: 600; } dd { margin: 0; }
.scroll { overflow-x: auto; } svg { display: block; height: auto; max-width: 640px; width: 100%; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
"""

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 640, 360, 52, 44, 12, 12
_TICKS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)


def verdict_page(verdict: Verdict) -> str:
    """The page of a verdict; every text in it is escaped, and nothing in it is fetched or run."""
    outcome = "passed" if verdict.passed else "refused"
    if verdict.acceptance is not None:
        outcome = "refused, and accepted by a person"
    colour = "passed" if verdict.passed else "failed"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Verdict on {_text(verdict.model or 'a challenger')}: {outcome}</title>",
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{_text(verdict.model or 'A challenger that cannot be read')}: "
        f'<span class="{colour}">{outcome}</span></h1>',
        _facts(verdict),
        _refusals(verdict),
        "<h2>Checks</h2>",
        _checks(verdict.checks),
    ]
    if verdict.frontier:
        parts += ["<h2>What thresholds would achieve</h2>", _frontier(verdict)]
    if verdict.ceilings:
        parts += ["<h2>What labels allow for</h2>", _ceilings(verdict)]
    return "\n".join([*(part for part in parts if part), "</body></html>\n"])


def _facts(verdict: Verdict) -> str:
    window = verdict.window
    rows = [
        ("Challenger", f"<code>{_text(verdict.challenger)}</code>"),
        (
            "Champion",
            f"<code>{_text(verdict.champion)}</code>" if verdict.champion else "none yet, nothing is compared",
        ),
        ("Known until", _instant(verdict.as_of_us)),
        (
            "Judged on",
            "nothing, it did not come to that"
            if window is None
            else f"{_instant(window.start_us)} to {_instant(window.end_us)}: {window.n_rows:,} transactions of "
            f"{window.n_customers:,} customers, {window.n_frauds:,} frauds",
        ),
        ("Verdict", f"<code>{verdict_digest(write_verdict(verdict))}</code>"),
    ]
    if verdict.acceptance is not None:
        given = verdict.acceptance
        rows.append(("Accepted", f"by {_text(given.author)}, {_instant(given.accepted_at_us)}: {_text(given.reason)}"))
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows) + "</dl>"


def _refusals(verdict: Verdict) -> str:
    """Why it was refused and what would move it, before all detail."""
    if verdict.passed:
        return "<p>Every check passed.</p>"
    names = ", ".join(_text(check.name) for check in verdict.refusals) or "nothing was checked"
    advice = "".join(f"<li>{_text(sentence)}</li>" for sentence in verdict.advice)
    return f'<p>Refused by: <span class="failed">{names}</span>.</p>' + (f"<ul>{advice}</ul>" if advice else "")


def _checks(checks: tuple[Check, ...]) -> str:
    rows = "".join(
        f"<tr><td>{_text(check.name)}</td>"
        f'<td class="{"passed" if check.passed else "failed"}">{"pass" if check.passed else "fail"}</td>'
        f'<td class="number">{_number(check.value)}</td>'
        f'<td class="number">{_interval(check)}</td>'
        f'<td>{_text(check.required)}</td><td class="why">{_text(check.why)}</td></tr>'
        for check in checks
    )
    head = (
        '<th>Check</th><th></th><th class="number">Value</th><th class="number">Interval</th><th>Required</th>'
        "<th>Found</th>"
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _frontier(verdict: Verdict) -> str:
    """Precision over recall, with the floors as a corner that the line would have to enter."""
    rules = verdict.rules
    left, top = _across(rules.min_recall), _up(1.0)
    width, height = _across(1.0) - left, _up(rules.min_precision) - top
    grid = "".join(
        f'<line x1="{_across(0)}" x2="{_across(1)}" y1="{_up(tick)}" y2="{_up(tick)}" stroke="var(--line)"/>'
        f'<text x="{_across(0) - 8}" y="{_up(tick) + 4}" text-anchor="end">{tick:g}</text>'
        f'<text x="{_across(tick)}" y="{_up(0) + 18}" text-anchor="middle">{tick:g}</text>'
        for tick in _TICKS
    )
    line = " ".join(f"{_across(point.recall)},{_up(point.precision)}" for point in verdict.frontier)
    dots = "".join(_dot(point) for point in verdict.frontier)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Precision over recall of all thresholds">'
        f'<rect x="{left}" y="{top}" width="{width:.1f}" height="{height:.1f}" fill="var(--good)" opacity="0.18"/>'
        f'{grid}<polyline points="{line}" fill="none" stroke="var(--ink)" stroke-width="2"/>{dots}'
        f'<text x="{_across(0.5)}" y="{_HEIGHT - 6}" text-anchor="middle">recall</text>'
        f'<text x="14" y="{_up(0.5)}" text-anchor="middle" transform="rotate(-90 14 {_up(0.5)})">precision</text></svg>'
        f"<p>The shaded corner is what the floors ask for: recall {rules.min_recall:g}, precision "
        f"{rules.min_precision:g}. Each point is the best precision at its recall.</p>"
    )


def _dot(point: FrontierPoint) -> str:
    return (
        f'<circle cx="{_across(point.recall)}" cy="{_up(point.precision)}" r="3" fill="var(--ink)"><title>from '
        f"{point.threshold:.4f} on: precision {point.precision:.3f}, recall {point.recall:.3f}, "
        f"{point.alerts_per_day:.1f} a day</title></circle>"
    )


def _ceilings(verdict: Verdict) -> str:
    rows = "".join(
        f"<tr><td>{in_days(ceiling.label_delay_us)}{'' if place else ', as it is'}</td>"
        f'<td class="number">{ceiling.with_evidence:.1%}</td><td class="number">{ceiling.found_without:.1%}</td>'
        f'<td class="number">{ceiling.recall:.3f}</td></tr>'
        for place, ceiling in enumerate(verdict.ceilings)
    )
    names = ("Frauds with evidence", "Found of the others", "Recall at best")
    head = "<th>Labels count after</th>" + "".join(f'<th class="number">{name}</th>' for name in names)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        "<p>Evidence is a known fraud of the same customer or terminal. Of the others, a model finds those that stand "
        "out by themselves; the share is this model's, at the precision floor.</p>"
    )


def _across(recall: float) -> float:
    return round(_LEFT + recall * (_WIDTH - _LEFT - _RIGHT), 1)


def _up(precision: float) -> float:
    return round(_TOP + (1.0 - precision) * (_HEIGHT - _TOP - _BOTTOM), 1)


def _interval(check: Check) -> str:
    return "" if check.interval is None else f"{_number(check.interval.low)} to {_number(check.interval.high)}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.2g}" if abs(value) < 1e-3 else f"{value:.4f}"


def _instant(time_us: int) -> str:
    return f"{format_instant(time_us)[:16].replace('T', ' ')} UTC"


def _text(text: str) -> str:
    return escape(text, quote=True)
