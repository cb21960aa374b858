"""The health routes that every app has, as a blueprint."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import azure.functions as func

from shared.entrypoints import http_health
from shared.ports.probes import Dependency


def health_routes(dependencies: Callable[[], Sequence[Dependency]]) -> func.Blueprint:
    """`GET health/live` and `GET health/ready`, both anonymous: whoever balances load or deploys holds no key.

    Args:
        dependencies: Called at each `health/ready`, so that the app is built at its first use and not at import.
    """
    routes = func.Blueprint()  # type: ignore[no-untyped-call]  # the library left it untyped

    @routes.function_name("health_live")
    @routes.route(route="health/live", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
    async def health_live(req: func.HttpRequest) -> func.HttpResponse:
        return http_health.live(req)

    @routes.function_name("health_ready")
    @routes.route(route="health/ready", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
    def health_ready(req: func.HttpRequest) -> func.HttpResponse:
        return http_health.ready(req, dependencies())

    return routes
