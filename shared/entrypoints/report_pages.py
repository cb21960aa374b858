"""The report page as HTML: tables and small pictures, nothing from elsewhere, no script."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlencode

from shared.domain.instants import US_PER_SECOND
from shared.domain.pipeline import RunStatus, Severity
from shared.ports.notifying import NoticeStatus
from shared.ports.reports import GateRow, PageFacts, QualityRow, Series, VerdictRow
from shared.services.reporting import report_path

PSI_MARKS: Final = (0.05, 0.3)
"""Lines in the pictures of drift: below the first nothing speaks; above the second retraining is asked for (record
0006)."""

WIDTH: Final = 220
HEIGHT: Final = 44
"""Of a picture, in its own units."""

_STYLE: Final = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--good:#1a7f4b;--bad:#c2321f;--warn:#a06a00;--ink:#2563a8;
font:15px/1.5 system-ui,sans-serif}
@media(prefers-color-scheme:dark){:root{--good:#4cc38a;--bad:#ff7a66;--warn:#e0a93b;--ink:#7fb2ec}}
body{max-width:72rem;margin:0 auto;padding:1.25rem 1rem 3rem}h1{font-size:1.5rem;margin:0}
h2{font-size:1.05rem;margin:2rem 0 .5rem}header p,.note{color:#888;margin:.2rem 0}a{color:var(--ink)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.6rem;margin:1rem 0}
.card{border:1px solid var(--line);border-radius:8px;padding:.6rem .8rem}.card b{display:block;font-size:1.3rem}
.card span{color:#888;font-size:.85rem}.wide{overflow-x:auto;border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;vertical-align:top;padding:.35rem .7rem;white-space:nowrap}
th{color:#888;font-weight:500;border-bottom:1px solid var(--line)}tr+tr td{border-top:1px solid var(--soft)}
td.text{white-space:normal;min-width:14rem;overflow-wrap:anywhere}.number{text-align:right;
font-variant-numeric:tabular-nums}.tall{max-height:27rem;overflow-y:auto}.tall th{position:sticky;top:0;
background:Canvas}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}.grid{display:grid;
grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:.6rem}figure{margin:0;border:1px solid var(--line);
border-radius:8px;padding:.45rem .6rem}figcaption{display:flex;justify-content:space-between;gap:.5rem;font-size:.85rem}
figcaption span:first-child{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
figcaption span:last-child{font-variant-numeric:tabular-nums}svg{display:block;width:100%;height:3.2rem}
.trend{fill:none;stroke:var(--ink);stroke-width:1.5;vector-effect:non-scaling-stroke}.dot{stroke:var(--ink);stroke-width:5;stroke-linecap:round;vector-effect:non-scaling-stroke}
.mark{stroke:var(--warn);stroke-width:1;stroke-dasharray:3 3;vector-effect:non-scaling-stroke}
.mark.high{stroke:var(--bad)}
"""

_STATE_CLASS: Final = {"quiet": "good", "drift": "bad", "withheld": "warn", "announced": "warn"}
_RUN_CLASS: Final = {RunStatus.DONE: "good", RunStatus.FAILED: "bad", RunStatus.SKIPPED: "warn"}
_NOTICE_CLASS: Final = {
    NoticeStatus.SENT: "good",
    NoticeStatus.FAILED: "bad",
    NoticeStatus.WITHHELD: "warn",
    NoticeStatus.WAITING: "warn",
}


def page(facts: PageFacts, reports: frozenset[str], key: str = "") -> str:
    """The report page.

    Args:
        facts: What it tells.
        reports: Paths of reports that are there; others are not linked.
        key: The access key of who looks, for the links; empty if none was needed or it came in a header.
    """
    links = _Links(reports, key)
    sections = (
        _section("Drift, hour by hour", "verdicts", _verdicts(facts.verdicts, links)),
        _section("Open reasons to retrain", "triggers", _triggers(facts)),
        _section("Last notices", "notices", _notices(facts)),
        _section(
            "PSI of each hour, 14 days",
            "drift",
            _pictures(_by_last(facts.drift), facts, PSI_MARKS),
            "Dashed: 0.05, below which nothing speaks, and 0.3, from which retraining is asked for. An hour above a "
            "line is no alert by itself.",
        ),
        _section("Performance on mature labels, 14 days", "performance", _pictures(facts.performance, facts, ())),
        _section("Data quality, last day", "quality", _quality(facts.quality)),
        _section("Verdicts of the promotion gate", "gate", _gate(facts.gate, links)),
        _section("Last runs", "runs", _runs(facts)),
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Tollgate reports</title><style>{_STYLE}</style></head><body>"
        f"<header><h1>Tollgate reports</h1><p>As of {_when(facts.now_us)}. All times are UTC.</p></header>"
        f"{_cards(facts)}{''.join(sections)}</body></html>"
    )


class _Links:
    """Links to reports, relative to the page."""

    def __init__(self, there: frozenset[str], key: str) -> None:
        self._there = there
        self._query = f"?{urlencode({'code': key})}" if key else ""

    def to(self, path: str, text: str) -> str:
        """A link, or nothing if the report is not there."""
        if path not in self._there:
            return ""
        return f'<a href="{html.escape("reports/" + quote(path) + self._query)}">{html.escape(text)}</a>'


def _cards(facts: PageFacts) -> str:
    last = facts.verdicts[0] if facts.verdicts else None
    drifted = sum(row.state == "drift" for row in facts.verdicts[:24])
    failing = sum(not row.passed for row in facts.quality)
    urgent = sum(item.notice.severity <= Severity.ERROR for item in facts.notices)
    cards = (
        (last.state if last else "none", "last verdict", _STATE_CLASS.get(last.state, "") if last else ""),
        (str(drifted) if last else "-", "of the last 24 hours drifted", _good_if(not drifted) if last else ""),
        (str(failing) if facts.quality else "-", "quality rules fail", _good_if(not failing) if facts.quality else ""),
        (str(len(facts.triggers)), "open reasons to retrain", "warn" if facts.triggers else ""),
        (str(urgent), "errors among the last notices", "bad" if urgent else ""),
    )
    return (
        '<div class="cards">'
        + "".join(
            f'<div class="card"><b class="{kind}">{html.escape(value)}</b><span>{text}</span></div>'
            for value, text, kind in cards
        )
        + "</div>"
    )


def _good_if(fine: bool) -> str:
    return "good" if fine else "bad"


def _section(title: str, name: str, body: str, note: str = "") -> str:
    said = f'<p class="note">{html.escape(note)}</p>' if note and body else ""
    empty = '<p class="note">Nothing yet.</p>'
    return f'<section id="{name}"><h2>{html.escape(title)}</h2>{body or empty}{said}</section>'


def _table(head: Sequence[str], rows: Iterable[str], kind: str = "") -> str:
    """A table; names of columns that end with `#` are over numbers."""
    body = "".join(rows)
    if not body:
        return ""
    names = "".join(
        f'<th class="number">{name.removesuffix("#")}</th>' if name.endswith("#") else f"<th>{name}</th>"
        for name in head
    )
    return f'<div class="wide{kind}"><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{html.escape(text)}</td>' if kind else f"<td>{html.escape(text)}</td>"


def _verdicts(rows: Sequence[VerdictRow], links: _Links) -> str:
    return _table(
        ("hour", "verdict", "transactions#", "out of bounds", "bundle", "report"),
        (
            "<tr>"
            f"{_cell(_when(row.start_us)[:16])}{_cell(row.state, _STATE_CLASS.get(row.state, ''))}"
            f"{_cell(f'{row.rows:,}', 'number')}{_cell(row.withheld or _findings(row), 'text')}"
            f"{_cell(row.bundle_digest[:12])}"
            f"<td>{links.to(report_path(row.start_us, 'html'), 'page')} "
            f"{links.to(report_path(row.start_us, 'json'), 'JSON')}</td></tr>"
            for row in rows
        ),
        " tall",
    )


def _findings(row: VerdictRow) -> str:
    return ", ".join(name if psi is None else f"{name} ({psi:.2f})" for name, psi in row.findings)


def _quality(rows: Sequence[QualityRow]) -> str:
    return _table(
        ("source", "rule", "last result", "observed#", "failed in a day#", "window until"),
        (
            f"<tr>{_cell(row.source)}{_cell(row.rule)}"
            f"{_cell('passed' if row.passed else 'failed', 'good' if row.passed else 'bad')}"
            f"{_cell(_number(row.observed), 'number')}{_cell(str(row.failures), 'number')}"
            f"{_cell(_when(row.end_us)[:16])}</tr>"
            for row in rows
        ),
    )


def _triggers(facts: PageFacts) -> str:
    return _table(
        ("cause", "subject", "priority", "since", "taken by"),
        (
            f"<tr>{_cell(item.trigger.cause)}{_cell(item.trigger.subject)}{_cell(item.trigger.priority.name.lower())}"
            f"{_cell(_when(item.trigger.created_at_us))}{_cell(item.claimed_by)}</tr>"
            for item in facts.triggers
        ),
    )


def _gate(rows: Sequence[GateRow], links: _Links) -> str:
    return _table(
        ("decided", "challenger", "verdict", "page"),
        (
            f"<tr>{_cell(_when(row.decided_at_us))}{_cell(row.challenger_digest[:12])}"
            f"{_cell('passed' if row.passed else 'refused', 'good' if row.passed else 'bad')}"
            f"<td>{links.to(f'verdicts/{row.verdict_digest}.html', 'checks')}</td></tr>"
            for row in rows
        ),
    )


def _notices(facts: PageFacts) -> str:
    return _table(
        ("when", "severity", "what", "channels"),
        (
            f"<tr>{_cell(_when(item.notice.created_at_us))}"
            f"{_cell(item.notice.severity.name.lower(), _severity_class(item.notice.severity))}"
            f"{_cell(item.notice.title, 'text')}<td>"
            + ", ".join(
                f'{html.escape(name)} <span class="{_NOTICE_CLASS[status]}">{status}</span>'
                for name, status in item.channels
            )
            + "</td></tr>"
            for item in facts.notices
        ),
    )


def _severity_class(severity: Severity) -> str:
    return {Severity.WARNING: "warn", Severity.INFORMATION: ""}.get(severity, "bad")


def _runs(facts: PageFacts) -> str:
    return _table(
        ("pipeline", "last run", "status", "took#", "error"),
        (
            f"<tr>{_cell(run.pipeline)}{_cell(_when(run.started_at_us))}"
            f"{_cell(run.status, _RUN_CLASS.get(run.status, ''))}"
            f"{_cell(_took(run.started_at_us, run.ended_at_us), 'number')}{_cell(run.error, 'text')}</tr>"
            for run in facts.runs
        ),
    )


def _by_last(series: Sequence[Series]) -> Sequence[Series]:
    """The one that is furthest out last comes first."""

    def last(one: Series) -> float:
        return next((value for _, value in reversed(one.points) if value is not None), -math.inf)

    return sorted(series, key=lambda one: (-last(one), one.name))


def _pictures(series: Sequence[Series], facts: PageFacts, marks: Sequence[float]) -> str:
    if not series:
        return ""
    return f'<div class="grid">{"".join(picture(one, facts.since_us, facts.now_us, marks) for one in series)}</div>'


def picture(series: Series, start_us: int, end_us: int, marks: Sequence[float] = ()) -> str:
    """A trend as a figure, with the last value in words; gaps are gaps.

    Args:
        series: The numbers.
        start_us: The left edge, microseconds since 1970 UTC.
        end_us: The right edge.
        marks: Values at which a line is drawn; with any, the scale goes from zero to the first of them at least.
    """
    known = [(at, value) for at, value in series.points if value is not None and math.isfinite(value)]
    last = _number(known[-1][1]) if known else "none"
    values = [value for _, value in known]
    top = max([*values, *marks[:1]], default=1.0)
    # Without lines the picture is about change: it begins at the least value, or lower where there is hardly any.
    low = min([0.0, *values]) if marks else min(values, default=0.0) - 0.1 * abs(top)
    scale = HEIGHT / ((top - low) * 1.08 or 1.0)

    def place(at: int, value: float) -> str:
        across = (at - start_us) / max(end_us - start_us, 1) * WIDTH
        return f"{across:.1f} {HEIGHT - (value - low) * scale:.1f}"

    lines = "".join(
        f'<path class="mark{" high" if number else ""}" d="M0 {HEIGHT - (mark - low) * scale:.1f}H{WIDTH}"/>'
        for number, mark in enumerate(marks)
        if mark <= top * 1.08
    )
    parts: list[str] = []
    broken = True
    for at, value in series.points:
        if value is None or not math.isfinite(value):
            broken = True
            continue
        parts.append(f"{'M' if broken else 'L'}{place(at, value)}")
        broken = False
    dot = ""
    if known:
        dot = f'<path class="dot" d="M{place(*known[-1])}h0"/>'
    name = html.escape(series.name)
    return (
        f'<figure><figcaption><span title="{name}">{name}</span><span>{last}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{name}: {last}">'
        f'{lines}<path class="trend" d="{"".join(parts)}"/>{dot}</svg></figure>'
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _took(start_us: int, end_us: int | None) -> str:
    return "" if end_us is None else f"{(end_us - start_us) / US_PER_SECOND:.1f} s"


def _when(time_us: int) -> str:
    return datetime.fromtimestamp(time_us // US_PER_SECOND, UTC).strftime("%Y-%m-%d %H:%M:%S")
