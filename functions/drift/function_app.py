"""The drift app: what is watched, on timers."""

import azure.functions as func

from shared.bootstrap.drift import drift_app
from shared.bootstrap.drift_metrics import drift_metrics
from shared.entrypoints import timer_partitions, timer_probes, timer_seals
from shared.entrypoints.drift_timers import drift_timers
from shared.entrypoints.expiry_timers import expiry_timers
from shared.entrypoints.health_routes import health_routes
from shared.entrypoints.metrics_routes import metrics_routes
from shared.entrypoints.metrics_timers import metrics_timers
from shared.entrypoints.notice_timers import notice_timers
from shared.entrypoints.quality_timers import quality_timers
from shared.entrypoints.report_routes import report_routes

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
app.register_functions(health_routes(lambda: drift_app().dependencies))
app.register_functions(metrics_routes(lambda: drift_metrics().watching))
app.register_functions(metrics_timers(drift_metrics))
app.register_functions(notice_timers(lambda: drift_app().notices))
app.register_functions(report_routes(lambda: drift_app().reports))
app.register_functions(quality_timers(lambda: drift_app().quality))
app.register_functions(drift_timers(lambda: drift_app().watch))
app.register_functions(expiry_timers(lambda: drift_app().expiry))


@app.function_name("send_probe")
@app.timer_trigger(arg_name="timer", schedule="%PROBE_SCHEDULE%")
@app.event_hub_output(arg_name="outgoing", event_hub_name="%TRANSACTIONS_HUB%", connection="EVENT_HUBS")
def send_probe(timer: func.TimerRequest, outgoing: func.Out[str]) -> None:
    """Send a probe down the path of the transactions."""
    timer_probes.send(timer, outgoing, drift_app().clock, drift_app().runs)


@app.function_name("forget_probes")
@app.timer_trigger(arg_name="timer", schedule="0 17 * * * *")
def forget_probes(timer: func.TimerRequest) -> None:
    """Drop old receipts, hourly."""
    timer_probes.forget(timer, drift_app().receipts, drift_app().clock, drift_app().runs)


@app.function_name("make_partitions")
@app.timer_trigger(arg_name="timer", schedule="0 43 1 * * *")
def make_partitions(timer: func.TimerRequest) -> None:
    """Make the database's next time partitions, daily."""
    timer_partitions.make(timer, drift_app().partitions, drift_app().clock, drift_app().runs)


@app.function_name("seal_log")
@app.timer_trigger(arg_name="timer", schedule="0 * * * * *")
def seal_log(timer: func.TimerRequest) -> None:
    """Write down outside the database where the log ends, every minute."""
    timer_seals.make(timer, drift_app().sealed, drift_app().seals, drift_app().clock, drift_app().runs)
