"""Dead letters as blobs: what came, where from, and why it could not be used."""

from __future__ import annotations

import base64
import json

from azure.storage.blob import ContainerClient, ContentSettings

from shared.adapters.blob_errors import translated
from shared.domain.event import DeadLetter

_JSON = ContentSettings(content_type="application/json")


class BlobDeadLetters:
    """`<hub>/<partition>/<enqueued_at_us>-<sequence>.json` in a container.

    The name is a function of the event, so a redelivered event overwrites its own dead letter. The time is part of it
    because a hub that was made anew counts from zero again.
    """

    def __init__(self, container: ContainerClient) -> None:
        self._container = container

    def put(self, letter: DeadLetter) -> None:
        """Keep a dead letter; the raw body is stored as base64, so that any bytes survive."""
        event = letter.event
        document = {
            "reason": f"{letter.field or 'the input'} {letter.rule}",
            "field": letter.field,
            "rule": letter.rule,
            "recorded_at_us": letter.recorded_at_us,
            "hub": event.hub,
            "partition": event.partition,
            "sequence_number": event.sequence_number,
            "offset": event.offset,
            "enqueued_at_us": event.enqueued_at_us,
            "body_base64": base64.b64encode(event.body).decode("ascii"),
        }
        name = f"{event.hub}/{event.partition}/{event.enqueued_at_us:020d}-{event.sequence_number:020d}.json"
        with translated("writing a dead letter"):
            self._container.upload_blob(name, json.dumps(document).encode(), overwrite=True, content_settings=_JSON)
