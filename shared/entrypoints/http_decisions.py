"""Decisions looked up by the id of their transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from urllib.parse import unquote

import azure.functions as func

from shared.domain.decision_record import read_decision
from shared.domain.errors import InvalidInput, NotFound
from shared.domain.identifiers import TransactionId, parse_identifier
from shared.entrypoints.wire_decision import Document, encode, known_document

type Replay = Callable[[bytes], Document]
"""Computes a stored decision again; returns `verdict`, `detail` and `differing`, as the shape `Replay` says."""


class StoredDecisions(Protocol):
    """Where decisions are kept."""

    def find(self, transaction_id: TransactionId) -> bytes | None:
        """Canonical bytes of a decision; None if there is none under this id.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...


def look_up(request: func.HttpRequest, stored: StoredDecisions, replay: Replay) -> func.HttpResponse:
    """`GET /api/decisions/{transaction_id}`: all that it knew; with `?replay=true`, computed again too.

    Raises:
        InvalidInput: The id is malformed, or `replay` is neither true nor false.
        NotFound: There is no decision under this id: never sent, refused, or imported as history.
        Transient: The store cannot be reached now.
    """
    identifier = TransactionId(parse_identifier("transaction_id", unquote(request.route_params["transaction_id"])))
    wants_replay = request.params.get("replay", "false")
    if wants_replay not in {"true", "false"}:
        raise InvalidInput("replay", "must be true or false")
    data = stored.find(identifier)
    if data is None:
        raise NotFound("transaction_id", "has no decision")
    document = known_document(read_decision(data))
    if wants_replay == "true":
        document["replay"] = replay(data)
    return func.HttpResponse(encode(document), mimetype="application/json")
