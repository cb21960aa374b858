"""Decisions looked up by the id of their transaction."""

from __future__ import annotations

import re
from typing import Final, Protocol

import azure.functions as func

from shared.domain.decision_record import read_decision
from shared.domain.errors import NotFound
from shared.domain.identifiers import TransactionId, parse_identifier
from shared.entrypoints.wire_decision import encode, known_document

_ENCODED_SLASH: Final = re.compile("%2f", re.IGNORECASE)
"""Hosts decode a route's parameter but for slashes, so that one may stand for itself or for a slash."""


class StoredDecisions(Protocol):
    """Where decisions are kept."""

    def find(self, transaction_id: TransactionId) -> bytes | None:
        """Canonical bytes of a decision; None if there is none under this id.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...


def look_up(request: func.HttpRequest, stored: StoredDecisions) -> func.HttpResponse:
    """`GET /api/decisions/{transaction_id}`: all that the decision knew.

    Raises:
        InvalidInput: The id is malformed.
        NotFound: There is no decision under this id: never sent, refused, or imported as history.
        Transient: The store cannot be reached now.
    """
    given = parse_identifier("transaction_id", request.route_params["transaction_id"])
    data = stored.find(TransactionId(given))
    if data is None and (slashed := _ENCODED_SLASH.sub("/", given)) != given:
        data = stored.find(TransactionId(slashed))
    if data is None:
        raise NotFound("transaction_id", "has no decision")
    return func.HttpResponse(encode(known_document(read_decision(data))), mimetype="application/json")
