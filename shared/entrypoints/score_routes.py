"""The routes of the score app, as a blueprint: each translates and calls, nothing more.

The routes of operators begin with `manage`, because the host keeps every route that begins with `admin` for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import azure.functions as func

from shared.domain.policy_choice import PolicyRule
from shared.entrypoints import http_decisions, http_docs, http_metrics, http_models
from shared.entrypoints.http_decisions import ReplayOne, StoredDecisions
from shared.entrypoints.http_models import ModelSource, RoleBook
from shared.entrypoints.http_score import ScoreRoutes
from shared.entrypoints.http_score_front import Front
from shared.services.batching import Batching


@dataclass(frozen=True, slots=True)
class ScoreParts:
    """What the routes need.

    Attributes:
        scoring: Scores transactions.
        batching: Where they wait.
        front: Counts requests.
        source: Where the model comes from.
        roles: Who plays which role.
        policy: How the policy follows from settings and model.
        stored: Where decisions are kept.
        replay: Decides a stored decision again.
        version: Of the product.
    """

    scoring: ScoreRoutes
    batching: Batching
    front: Front
    source: ModelSource
    roles: RoleBook
    policy: PolicyRule
    stored: StoredDecisions
    replay: ReplayOne
    version: str


def score_routes(parts: Callable[[], ScoreParts]) -> func.Blueprint:
    """All routes but health.

    Args:
        parts: Called by each request, so that the app is built at its first use and not at import.
    """
    routes = func.Blueprint()  # type: ignore[no-untyped-call]  # the library left it untyped
    _add_scoring(routes, parts)
    _add_reading(routes, parts)
    _add_managing(routes, parts)
    return routes


def _add_scoring(routes: func.Blueprint, parts: Callable[[], ScoreParts]) -> None:
    @routes.function_name("score")
    @routes.route(route="score", methods=["POST"])
    async def score(req: func.HttpRequest) -> func.HttpResponse:
        return await parts().scoring.one(req)

    @routes.function_name("score_batch")
    @routes.route(route="score/batch", methods=["POST"])
    async def score_batch(req: func.HttpRequest) -> func.HttpResponse:
        return await parts().scoring.many(req)

    @routes.function_name("preflight")
    @routes.route(route="{*path}", methods=["OPTIONS"], auth_level=func.AuthLevel.ANONYMOUS)
    async def preflight(req: func.HttpRequest) -> func.HttpResponse:
        return parts().front.cors.preflight(req)


def _add_reading(routes: func.Blueprint, parts: Callable[[], ScoreParts]) -> None:
    @routes.function_name("decision")
    @routes.route(route="decisions/{transaction_id}", methods=["GET"])
    def decision(req: func.HttpRequest) -> func.HttpResponse:
        app = parts()
        return app.front.run_sync("decision", req, lambda asked: http_decisions.look_up(asked, app.stored, app.replay))

    @routes.function_name("models")
    @routes.route(route="models", methods=["GET"])
    def models(req: func.HttpRequest) -> func.HttpResponse:
        app = parts()
        return app.front.run_sync("models", req, lambda _: http_models.models(app.source, app.roles, app.policy))

    @routes.function_name("metrics")
    @routes.route(route="metrics", methods=["GET"])
    def metrics(req: func.HttpRequest) -> func.HttpResponse:
        del req  # not counted: who looks should not change what is seen
        app = parts()
        gauges = {
            "tollgate_waiting_transactions": ("Transactions that wait in this process.", float(app.batching.waiting)),
            "tollgate_in_flight_transactions": ("Transactions being decided here.", float(app.batching.in_flight)),
        }
        return http_metrics.metrics(app.front.meters, gauges)

    @routes.function_name("openapi")
    @routes.route(route="openapi.json", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
    def openapi(req: func.HttpRequest) -> func.HttpResponse:
        app = parts()
        return app.front.run_sync("docs", req, lambda _: http_docs.description(app.version))

    @routes.function_name("docs")
    @routes.route(route="docs", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
    def docs(req: func.HttpRequest) -> func.HttpResponse:
        app = parts()
        return app.front.run_sync("docs", req, lambda _: http_docs.page(app.version))


def _add_managing(routes: func.Blueprint, parts: Callable[[], ScoreParts]) -> None:
    @routes.function_name("manage_status")
    @routes.route(route="manage/status", methods=["GET"], auth_level=func.AuthLevel.ADMIN)
    def manage_status(req: func.HttpRequest) -> func.HttpResponse:
        app = parts()
        return app.front.run_sync("manage", req, lambda _: http_models.status(app.source, app.batching, app.policy))

    @routes.function_name("manage_roles")
    @routes.route(route="manage/roles", methods=["GET"], auth_level=func.AuthLevel.ADMIN)
    def manage_roles(req: func.HttpRequest) -> func.HttpResponse:
        app = parts()
        return app.front.run_sync("manage", req, lambda _: http_models.given_roles(app.source, app.roles))

    @routes.function_name("manage_reload")
    @routes.route(route="manage/reload", methods=["POST"], auth_level=func.AuthLevel.ADMIN)
    def manage_reload(req: func.HttpRequest) -> func.HttpResponse:
        app = parts()
        return app.front.run_sync("manage", req, lambda _: http_models.reload(app.source, app.batching, app.policy))
