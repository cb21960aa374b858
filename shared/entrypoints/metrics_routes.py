"""The one place to scrape: what all instances of all apps counted, and what the database knows."""

from __future__ import annotations

import logging
from collections.abc import Callable

import azure.functions as func

from shared.domain.errors import TollgateError
from shared.entrypoints import http_metrics
from shared.entrypoints.problems import answer
from shared.services.readings import Watching

_log = logging.getLogger(__name__)


def metrics_routes(watching: Callable[[], Watching]) -> func.Blueprint:
    """`GET /api/metrics`, with the same answer from any instance.

    Args:
        watching: Called by each request, so that the app is built at its first use and not at import.
    """
    routes = func.Blueprint()  # type: ignore[no-untyped-call]  # the library left it untyped

    @routes.function_name("metrics")
    @routes.route(route="metrics", methods=["GET"])
    def metrics(req: func.HttpRequest) -> func.HttpResponse:
        del req
        return scrape(watching())

    return routes


def scrape(watching: Watching) -> func.HttpResponse:
    """All metrics, or the problem: a scraper takes anything but 200 for a target that is down."""
    try:
        return http_metrics.answer(watching.metrics())
    except TollgateError as error:
        _log.error("metrics cannot be read", exc_info=error)
        return answer(error)
