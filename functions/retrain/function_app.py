"""The retrain app: it trains, judges, tries and promotes, and replays a sample of what was decided, on timers."""

import azure.functions as func

from shared.bootstrap.retrain import retrain_app
from shared.entrypoints.health_routes import health_routes
from shared.entrypoints.registry_timers import registry_timers
from shared.entrypoints.replay_timers import replay_timers
from shared.entrypoints.retrain_timers import retrain_timers
from shared.entrypoints.shadow_timers import shadow_timers

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
app.register_functions(health_routes(lambda: retrain_app().dependencies))
app.register_functions(shadow_timers(lambda: retrain_app().shadow))
app.register_functions(retrain_timers(lambda: retrain_app().training))
app.register_functions(registry_timers(lambda: retrain_app().registry))
app.register_functions(replay_timers(lambda: retrain_app().replaying))
