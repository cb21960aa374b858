"""The pages that people read: the report page, the reports that it links, and the timer that has them drawn."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import azure.functions as func

from shared.domain.errors import NotFound
from shared.domain.pipeline import Evidence
from shared.entrypoints import report_pages
from shared.entrypoints.problems import answering
from shared.ports.clock import Clock
from shared.ports.reports import PageReadings, ReportStore
from shared.services.reporting import EVERY_US, PREFIX
from shared.services.timed_runs import TimedRuns
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)

PIPELINE: Final = "reporting"
VERDICTS: Final = "verdicts/"

_SERVED: Final = re.compile(
    rf"(?:{PREFIX}|{VERDICTS})(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*\.(html|json)"
)
"""Paths that are served: reports and verdicts alone, without a part that begins with a full stop. The archive of rows
lies in the same container and is not served."""

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address may hold the access key
    "X-Content-Type-Options": "nosniff",
}
_PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_REPORT_POLICY: Final = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""A report brings its own script along. It runs in a sandbox: an origin of its own, and nowhere to send anything."""


@dataclass(frozen=True, slots=True)
class ReportParts:
    """What pages are made from, and what draws reports."""

    readings: PageReadings
    store: ReportStore
    draw: Callable[[], Evidence]
    clock: Clock
    runs: TimedRuns


def report_routes(parts: Callable[[], ReportParts]) -> func.Blueprint:
    """`GET reports`, `GET reports/{path}`, and `draw_reports` every ten minutes.

    Args:
        parts: Called at each use, so that the app is built at its first use and not at import.
    """
    routes = func.Blueprint()  # type: ignore[no-untyped-call]  # the library left it untyped

    @routes.function_name("reports")
    @routes.route(route="reports", methods=["GET"])
    def reports(req: func.HttpRequest) -> func.HttpResponse:
        return index(req, parts())

    @routes.function_name("report")
    @routes.route(route="reports/{*path}", methods=["GET"])
    def report(req: func.HttpRequest) -> func.HttpResponse:
        return one(req, parts())

    # After the hour's verdict, which comes some minutes into the hour, and again until it is there.
    @routes.function_name("draw_reports")
    @routes.timer_trigger(arg_name="timer", schedule="30 9,19,29,39,49,59 * * * *")
    def draw_reports(timer: func.TimerRequest) -> None:
        draw(timer, parts())

    return routes


def index(request: func.HttpRequest, parts: ReportParts) -> func.HttpResponse:
    """`GET /api/reports`."""

    def handle(request: func.HttpRequest) -> func.HttpResponse:
        facts = parts.readings.read(parts.clock.now_us())
        there = frozenset(path for prefix in (PREFIX, VERDICTS) for path in parts.store.paths(prefix))
        body = report_pages.page(facts, there, request.params.get("code", ""))
        headers = {**_HEADERS, "Content-Security-Policy": _PAGE_POLICY}
        return func.HttpResponse(body, headers=headers, mimetype="text/html", charset="utf-8")

    return answering(handle)(request)


def one(request: func.HttpRequest, parts: ReportParts) -> func.HttpResponse:
    """`GET /api/reports/{path}`."""

    def handle(request: func.HttpRequest) -> func.HttpResponse:
        path = request.route_params.get("path", "")
        served = _SERVED.fullmatch(path)
        found = parts.store.get(path) if served else None
        if served is None or found is None:
            raise NotFound("path", "names no report")
        kind = "text/html" if served.group(1) == "html" else "application/json"
        headers = {**_HEADERS, "Content-Security-Policy": _REPORT_POLICY}
        return func.HttpResponse(found[0], headers=headers, mimetype=kind, charset="utf-8")

    return answering(handle)(request)


def draw(timer: func.TimerRequest, parts: ReportParts) -> None:
    """Have missing reports drawn. A failure is raised: the host shows it, and the next firing makes up for it.

    Raises:
        Transient: A report could not be drawn this time, or a store is away.
        BrokenInvariant: The container, the schema or a right is missing.
    """
    done = parts.runs.run(PIPELINE, EVERY_US, parts.draw)
    _log.info(with_fields("reports drawn", **done, past_due=timer.past_due))
