"""Drawing what is missing, the report page, and what is served of the container."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import azure.functions as func
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shared.adapters.evidently_report import bins_of, labels_of
from shared.domain.bundle_reference import BinKind, Histogram, histogram_of, hour_of_week
from shared.domain.errors import NotFound, Transient
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.pipeline import Cause, Notice, OpenTrigger, Priority, Run, RunStatus, Severity, Trigger
from shared.entrypoints import report_routes
from shared.entrypoints.report_pages import page, picture
from shared.entrypoints.report_routes import ReportParts
from shared.ports.notifying import KeptNotice, NoticeStatus
from shared.ports.reports import ComparedWindow, GateRow, PageFacts, QualityRow, Series, VerdictRow
from shared.services.reporting import PREFIX, Reporting, ReportRules, report_path
from shared.services.timed_runs import TimedRuns
from tests.fakes.pipelines import FakePipelineLog
from tests.fakes.probes import FakeClock
from tests.fakes.reports import FakeDrawing, FakeReadings, FakeReports

NOW_US = FakeClock().now_us()
HOUR_US = NOW_US // US_PER_HOUR * US_PER_HOUR
DIGEST = "9f" * 32


def windows(count: int) -> list[ComparedWindow]:
    return [ComparedWindow(HOUR_US - place * US_PER_HOUR, DIGEST) for place in range(1, count + 1)]


def test_missing_reports_are_drawn_once_the_newest_first() -> None:
    store, drawing = FakeReports(), FakeDrawing()
    reporting = Reporting(FakeReadings(windows(9)), store, drawing, FakeClock(), ReportRules(most=6))
    assert reporting.run() == {"drawn": 6, "deleted": 0, "gone": 0}
    assert drawing.drawn == [window.start_us for window in windows(6)]
    assert reporting.run()["drawn"] == 3
    assert reporting.run()["drawn"] == 0
    assert store.pages[report_path(windows(1)[0].start_us, "html")][1] == "text/html; charset=utf-8"


def test_one_that_cannot_be_drawn_keeps_none_from_the_others_and_is_made_up_for() -> None:
    first, second, _ = windows(3)
    drawing = FakeDrawing({first.start_us: Transient("killed"), second.start_us: NotFound("window", "is not archived")})
    reporting = Reporting(FakeReadings(windows(3)), FakeReports(), drawing, FakeClock())
    with pytest.raises(Transient, match="killed"):
        reporting.run()
    assert len(drawing.drawn) == 1
    assert reporting.run() == {"drawn": 2, "deleted": 0, "gone": 0}


def test_half_a_report_is_drawn_again() -> None:
    store, (window,) = FakeReports(), windows(1)
    store.put(report_path(window.start_us, "html"), b"", "text/html")  # the process died before the JSON
    assert Reporting(FakeReadings([window]), store, FakeDrawing(), FakeClock()).run()["drawn"] == 1


def test_old_reports_and_nothing_else_are_deleted() -> None:
    store = FakeReports()
    ages = {days: report_path(NOW_US - days * US_PER_DAY, "html") for days in (0, 29, 30, 31, 400)}
    for path in (*ages.values(), "verdicts/old.html", "drift/2001/01/01/00.parquet", f"{PREFIX}readme.html"):
        store.put(path, b"", "text/html")
    done = Reporting(FakeReadings(), store, FakeDrawing(), FakeClock(), ReportRules(keep_days=30)).run()
    assert done["deleted"] == 2
    assert not {ages[31], ages[400]} & set(store.pages)
    assert len(store.pages) == 6


class WellFormed(HTMLParser):
    """Fails on elements that are not closed in order; collects text, scripts and links."""

    VOID = frozenset({"meta", "path"})  # the latter closes itself

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()
        self.said = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


HOSTILE = "</td><script>alert(1)</script>\"'&amp;<img src=x onerror=alert(1)>"


def facts(text: str) -> PageFacts:
    """A page's facts, with some text wherever text can be."""
    title = text[:200] or "x"
    trigger = Trigger(Cause.FEATURE_DRIFT, text, Priority.HIGH, {}, NOW_US)
    return PageFacts(
        now_us=NOW_US,
        since_us=NOW_US - US_PER_DAY,
        verdicts=(
            VerdictRow(HOUR_US - US_PER_HOUR, HOUR_US, text, 10, text, ((text, 0.3), (text, None)), ""),
            VerdictRow(HOUR_US - 2 * US_PER_HOUR, HOUR_US, DIGEST, 0, "withheld", (), text),
        ),
        drift=(Series(text, ((HOUR_US - US_PER_HOUR, 0.1), (HOUR_US, None))),),
        performance=(Series(text, ()),),
        quality=(QualityRow(text, text, False, None, HOUR_US, 1),),
        gate=(GateRow(DIGEST, text, True, NOW_US),),
        triggers=(OpenTrigger(1, trigger, text),),
        notices=(
            KeptNotice(
                Notice("k", Severity.ERROR, title, {}, text, NOW_US),
                ((text, NoticeStatus.SENT), ("b", NoticeStatus.FAILED)),
            ),
        ),
        runs=(Run("r", text, RunStatus.FAILED, NOW_US, NOW_US + 5, text),),
    )


def test_hostile_text_stays_text() -> None:
    there = frozenset({report_path(HOUR_US - US_PER_HOUR, "html"), f"verdicts/{DIGEST}.html"})
    parsed = WellFormed(page(facts(HOSTILE), there, key=HOSTILE))
    assert not parsed.names & {"script", "img", "link", "iframe"}
    assert parsed.said.count(HOSTILE) >= 15
    assert all(re.fullmatch(r"reports/[a-z0-9/.-]+\?code=[A-Za-z0-9%_.+-]+", link) for link in parsed.links)
    assert len(parsed.links) == 2


@given(st.text(min_size=1, max_size=50).filter(lambda text: "\n" not in text))
def test_the_page_is_well_formed_whatever_it_tells(text: str) -> None:
    WellFormed(page(facts(text), frozenset()))


def test_an_empty_page_says_so() -> None:
    parsed = WellFormed(page(PageFacts(NOW_US, NOW_US - US_PER_DAY), frozenset()))
    assert parsed.said.count("Nothing yet.") == 8
    assert parsed.links == []


def test_only_reports_that_are_there_are_linked() -> None:
    there = frozenset({report_path(HOUR_US - US_PER_HOUR, "json")})
    assert WellFormed(page(facts("x"), there)).links == [f"reports/{report_path(HOUR_US - US_PER_HOUR, 'json')}"]


@given(st.lists(st.none() | st.floats(), max_size=8))
def test_a_picture_breaks_at_gaps_and_stays_inside(values: list[float | None]) -> None:
    points = tuple((place, value) for place, value in enumerate(values))
    drawn = picture(Series("s", points), 0, max(len(values) - 1, 1), (0.05, 0.3))
    path = re.findall(r'class="trend" d="([^"]*)"', drawn)[0]
    known = [value is not None and np.isfinite(value) for value in values]
    starts = sum(here and not before for before, here in zip([False, *known], known, strict=False))
    assert (path.count("M"), path.count("M") + path.count("L")) == (starts, sum(known))
    for across, down in re.findall(r"[ML](\S+?) ([-\d.]+)", path):
        assert 0 <= float(across) <= 220
        assert 0 <= float(down) <= 44


@given(
    arrays.arrays(np.float32, st.integers(1, 60), elements=st.floats(-5, 5, width=16) | st.just(np.nan)),
    st.integers(1, 500),
)
def test_rows_made_from_a_histogram_have_its_shares(values: np.ndarray, count: int) -> None:
    histogram = histogram_of(values.astype(np.float32), np.zeros(len(values), dtype=np.int64))
    made = bins_of(histogram, np.zeros(0, dtype=np.int64), count)
    shares = np.bincount(made, minlength=histogram.n_bins) / count
    assert np.abs(shares - histogram.counts / histogram.counts.sum()).max() <= 1 / count
    assert len(labels_of(histogram)) == histogram.n_bins == len(set(labels_of(histogram)))


def test_a_feature_with_a_rhythm_is_compared_with_the_same_hours() -> None:
    by_hour = np.zeros((168, 4), dtype=np.int64)
    by_hour[3, 2], by_hour[4, 3] = 10, 30
    histogram = Histogram(BinKind.VALUES, (0.0, 1.0), by_hour.sum(axis=0), by_hour)
    third = hour_of_week(np.array([4 * US_PER_DAY + 3 * US_PER_HOUR]))  # 5 January 1970 was a Monday
    assert set(bins_of(histogram, third, 8)) == {2}
    assert set(bins_of(histogram, third + 100, 8)) == {2, 3}  # an hour that the reference never had


def parts(store: FakeReports, found: PageFacts | None = None) -> ReportParts:
    clock = FakeClock()
    runs = TimedRuns(FakePipelineLog(), clock, "p")
    return ReportParts(FakeReadings(facts=found), store, lambda: {"drawn": 1}, clock, runs)


def asked(path: str, **params: str) -> func.HttpRequest:
    return func.HttpRequest("GET", "/api/reports", body=b"", params=params, route_params={"path": path})


def test_the_page_lets_nothing_in_and_nothing_out() -> None:
    answer = report_routes.index(asked("", code="k&y"), parts(FakeReports(), facts("x")))
    assert answer.status_code == 200
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert "script-src" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_report_runs_its_script_in_a_sandbox() -> None:
    store = FakeReports()
    store.put("evidently/2026/11/21/drift-1000.html", b"<script></script>", "image/svg+xml")
    answer = report_routes.one(asked("evidently/2026/11/21/drift-1000.html"), parts(store))
    assert (answer.status_code, answer.get_body(), answer.mimetype) == (200, b"<script></script>", "text/html")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'")
    assert "allow-same-origin" not in policy


@pytest.mark.parametrize(
    "path",
    [
        *("", "drift/2026/11/21/10.parquet", "drift/a.html", "evidently/../drift/a.html", "evidently//a.html"),
        *("evidently/.a.html", "/evidently/a.html", "evidently/a.html/", "evidently/a.htm", "evidently/a b.html"),
        *("evidently/a.html\n", "evidently/%2e%2e/a.html", "evidently\\a.html", "verdicts/missing.html"),
    ],
)
def test_nothing_but_reports_is_served(path: str) -> None:
    store = FakeReports()
    for kept in ("drift/2026/11/21/10.parquet", "drift/a.html", "evidently/../drift/a.html", "evidently/.a.html", path):
        if kept != "verdicts/missing.html":
            store.put(kept, b"secret", "text/html")
    assert report_routes.one(asked(path), parts(store)).status_code == 404


def test_gaps_are_kept_out_of_the_text_of_a_picture() -> None:
    drawn = picture(Series("s", ((0, 0.5), (1, None))), 0, 1)
    assert 'aria-label="s: 0.5"' in drawn
