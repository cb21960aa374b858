"""The ingest app: the transactions hub in."""

from typing import List

import azure.functions as func

from shared.bootstrap import ingest_app
from shared.entrypoints import eventhub_ingest
from shared.entrypoints.health_routes import health_routes

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
app.register_functions(health_routes(lambda: ingest_app().dependencies))


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
    """Take one batch."""
    parts = ingest_app()
    eventhub_ingest.receive(events, parts.receipts, parts.dead_letters, parts.clock)
