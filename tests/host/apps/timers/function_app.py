"""Timer functions for the tests; each run is a line in the file that RECORD names."""

import json
import os
import time
from pathlib import Path

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)


def record(name: str, timer: func.TimerRequest) -> None:
    line = json.dumps(
        {
            "name": name,
            "at": time.time(),
            "past_due": timer.past_due,
            "status": getattr(timer, "schedule_status", None),
            "instance": os.environ["INSTANCE"],
        }
    )
    with Path(os.environ["RECORD"]).open("a") as file:
        file.write(line + "\n")


@app.timer_trigger(schedule="%FAST%", arg_name="timer", use_monitor=True)
def fast(timer: func.TimerRequest) -> None:
    record("fast", timer)


@app.timer_trigger(schedule="0 0 0 1 1 *", arg_name="timer", run_on_startup=True)
def at_start(timer: func.TimerRequest) -> None:
    record("at_start", timer)


@app.timer_trigger(schedule="%HOURLY%", arg_name="timer")
async def hourly(timer: func.TimerRequest) -> None:
    record("hourly", timer)


@app.timer_trigger(schedule="%FAILING%", arg_name="timer")
@app.retry(strategy="fixed_delay", max_retry_count="2", delay_interval="00:00:00")
def failing(timer: func.TimerRequest, context: func.Context) -> None:
    record(f"failing {context.retry_context.retry_count}", timer)
    raise ValueError("on purpose")
