"""Decisions looked up by the id of their transaction."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Protocol

import azure.functions as func

from shared.domain.decision_record import read_decision
from shared.domain.errors import InvalidInput, NotFound
from shared.domain.identifiers import TransactionId, parse_identifier
from shared.entrypoints.wire_decision import Document, encode, known_document
from shared.services.replaying import Replay

_ENCODED_SLASH: Final = re.compile("%2f", re.IGNORECASE)
"""Hosts decode a route's parameter but for slashes, so that one may stand for itself or for a slash."""


type ReplayOne = Callable[[bytes], Replay]
"""Decides a stored decision again from its canonical bytes; raises Transient if its bundle cannot be fetched now."""


class StoredDecisions(Protocol):
    """Where decisions are kept."""

    def find(self, transaction_id: TransactionId) -> bytes | None:
        """Canonical bytes of a decision; None if there is none under this id.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...


def look_up(request: func.HttpRequest, stored: StoredDecisions, replay: ReplayOne) -> func.HttpResponse:
    """`GET /api/decisions/{transaction_id}`: all that the decision knew; with `?replay=true`, also decided again.

    Raises:
        InvalidInput: The id is malformed, or `replay` is neither true nor false.
        NotFound: There is no decision under this id: never sent, refused, or imported as history.
        Transient: The store cannot be reached now.
    """
    given = parse_identifier("transaction_id", request.route_params["transaction_id"])
    wanted = request.params.get("replay", "false")
    if wanted not in {"true", "false"}:
        raise InvalidInput("replay", "must be true or false")
    data = stored.find(TransactionId(given))
    if data is None and (slashed := _ENCODED_SLASH.sub("/", given)) != given:
        data = stored.find(TransactionId(slashed))
    if data is None:
        raise NotFound("transaction_id", "has no decision")
    document = known_document(read_decision(data))
    if wanted == "true":
        document["replay"] = _replay_document(replay(data))
    return func.HttpResponse(encode(document), mimetype="application/json")


def _replay_document(replayed: Replay) -> Document:
    return {
        "verdict": replayed.verdict.value,
        "obstacle": replayed.obstacle,
        "differences": [difference._asdict() for difference in replayed.differences],
    }
