"""The score app: HTTP in, answers out."""

import azure.functions as func

from shared.bootstrap.score import score_app
from shared.entrypoints import http_probes
from shared.entrypoints.health_routes import health_routes
from shared.entrypoints.score_routes import score_routes

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
app.register_functions(health_routes(lambda: score_app().dependencies))
app.register_functions(score_routes(lambda: score_app().parts))


@app.function_name("probe_receipt")
@app.route(route="probes/{probe_id}", methods=["GET"])
def probe_receipt(req: func.HttpRequest) -> func.HttpResponse:
    """Where is the probe that was sent."""
    return http_probes.receipt(req, score_app().receipts)
