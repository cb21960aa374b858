"""The retrain app: training and promotion arrive here with the model; until then it says whether it could run."""

import azure.functions as func

from shared.bootstrap.retrain import retrain_app
from shared.entrypoints.health_routes import health_routes
from shared.entrypoints.shadow_timers import shadow_timers

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
app.register_functions(health_routes(lambda: retrain_app().dependencies))
app.register_functions(shadow_timers(lambda: retrain_app().shadow))
