"""The score app: HTTP in, answers out."""

import azure.functions as func

from shared.bootstrap import score_app
from shared.entrypoints import http_health, http_probes

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)


@app.function_name("health_live")
@app.route(route="health/live", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
async def health_live(req: func.HttpRequest) -> func.HttpResponse:
    """Is the process alive."""
    return http_health.live(req)


@app.function_name("health_ready")
@app.route(route="health/ready", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def health_ready(req: func.HttpRequest) -> func.HttpResponse:
    """Can the app serve."""
    return http_health.ready(req, score_app().dependencies)


@app.function_name("probe_receipt")
@app.route(route="probes/{probe_id}", methods=["GET"])
def probe_receipt(req: func.HttpRequest) -> func.HttpResponse:
    """Where is the probe that was sent."""
    return http_probes.receipt(req, score_app().receipts)
