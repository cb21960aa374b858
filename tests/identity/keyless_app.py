"""An app on every kind of connection, run by a test as a process of its own: its environment is all it knows."""

from __future__ import annotations

import json
import os
import sys
import uuid

from azure.eventhub import EventData, EventHubProducerClient

from shared.adapters import connections, postgres


def blob() -> str:
    with connections.blob_service(connections.parse_storage("STORE", os.environ)) as service:
        container = service.create_container(f"k{uuid.uuid4().hex}")
        container.upload_blob("blob", b"kept")
        return container.download_blob("blob").readall().decode()


def hub() -> list[str]:
    connection = connections.parse_hub("EVENTS", os.environ)
    assert connection.identity is not None
    options = connections.hub_options(connection) | {"eventhub_name": "probes"}
    with EventHubProducerClient(credential=connections.credential(connection.identity), **options) as producer:
        producer.send_batch([EventData("probe")])
        return list(producer.get_partition_ids())


def user() -> str:
    connection = postgres.parse_postgres("DATABASE", os.environ)
    with postgres.connect(connection, application_name="keyless") as session:
        row = session.execute("SELECT current_user::text").fetchone()
    assert row is not None
    return str(row[0])


if __name__ == "__main__":
    json.dump({"blob": blob(), "hub": hub(), "user": user()}, sys.stdout)
