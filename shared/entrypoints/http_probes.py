"""Probes over HTTP: where is the probe that was sent."""

from __future__ import annotations

import azure.functions as func

from shared.entrypoints.problems import answering, json_response
from shared.ports.probes import ProbeReceipts
from shared.services import probing


def receipt(request: func.HttpRequest, receipts: ProbeReceipts) -> func.HttpResponse:
    """`GET /api/probes/{probe_id}`: 200 with the receipt, 404 while there is none, 400 for a malformed id."""
    return answering(lambda asked: _receipt(asked, receipts))(request)


def _receipt(request: func.HttpRequest, receipts: ProbeReceipts) -> func.HttpResponse:
    found = probing.look_up(request.route_params.get("probe_id", ""), receipts)
    return json_response(
        {
            "probe_id": found.probe.probe_id,
            "sent_at_us": found.probe.sent_at_us,
            "enqueued_at_us": found.enqueued_at_us,
            "received_at_us": found.received_at_us,
            "lag_ms": found.lag_us / 1000,
            "hub": found.hub,
            "partition": found.partition,
            "sequence_number": found.sequence_number,
        }
    )
