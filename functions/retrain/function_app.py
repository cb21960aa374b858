"""The retrain app: training and promotion arrive here with the model; until then it says whether it could run."""

import azure.functions as func

from shared.bootstrap import retrain_app
from shared.entrypoints import http_health

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)


@app.function_name("health_live")
@app.route(route="health/live", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
async def health_live(req: func.HttpRequest) -> func.HttpResponse:
    """Is the process alive."""
    return http_health.live(req)


@app.function_name("health_ready")
@app.route(route="health/ready", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def health_ready(req: func.HttpRequest) -> func.HttpResponse:
    """Can the app train."""
    return http_health.ready(req, retrain_app().dependencies)
