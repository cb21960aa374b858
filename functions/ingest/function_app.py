"""The ingest app: transactions and labels in, decisions out."""

from typing import List

import azure.functions as func

from shared.bootstrap.ingest import ingest_app
from shared.entrypoints import eventhub_ingest, timer_outbox
from shared.entrypoints.health_routes import health_routes
from shared.entrypoints.http_labels import label_routes
from shared.entrypoints.maturing_timers import maturing_timers

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
app.register_functions(health_routes(lambda: ingest_app().dependencies))
app.register_functions(label_routes(lambda: ingest_app().labels))
app.register_functions(maturing_timers(lambda: ingest_app().maturing))


# Without limit, because the platform moves its checkpoint on when retries are used up.
@app.function_name("transactions")
@app.event_hub_message_trigger(
    arg_name="events",
    event_hub_name="%TRANSACTIONS_HUB%",
    consumer_group="%TRANSACTIONS_GROUP%",
    connection="EVENT_HUBS",
    cardinality=func.Cardinality.MANY,
    data_type=func.DataType.BINARY,
)
@app.retry(
    strategy="exponential_backoff", max_retry_count="-1", minimum_interval="00:00:01", maximum_interval="00:01:00"
)
def transactions(events: List[func.EventHubEvent]) -> None:
    """Take one batch of transactions."""
    eventhub_ingest.receive(events, ingest_app().taking)


@app.function_name("labels")
@app.event_hub_message_trigger(
    arg_name="events",
    event_hub_name="%LABELS_HUB%",
    consumer_group="%LABELS_GROUP%",
    connection="EVENT_HUBS",
    cardinality=func.Cardinality.MANY,
    data_type=func.DataType.BINARY,
)
@app.retry(
    strategy="exponential_backoff", max_retry_count="-1", minimum_interval="00:00:01", maximum_interval="00:01:00"
)
def labels(events: List[func.EventHubEvent]) -> None:
    """Take one batch of labels."""
    eventhub_ingest.receive(events, ingest_app().taking)


@app.function_name("publish_decisions")
@app.timer_trigger(arg_name="timer", schedule="%PUBLISH_SCHEDULE%")
def publish_decisions(timer: func.TimerRequest) -> None:
    """Let decisions out."""
    timer_outbox.publish(timer, ingest_app().leaving, ingest_app().runs)
