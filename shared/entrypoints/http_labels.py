"""Labels over HTTP, from analysts and chargeback feeds: one, or up to a thousand, each answered on its own.

One object is answered as `POST score` answers: 200, or the problem. A list, JSON or CSV, is answered with one result
for each row: 200 if every row was taken, now or before; 207 if any was refused, and then the others are recorded all
the same. A body that cannot be read as a whole is a problem, and nothing of it is recorded.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from threading import BoundedSemaphore, Lock
from typing import Final

import azure.functions as func

from shared.domain.errors import InvalidInput, Overloaded
from shared.domain.event import parse_object
from shared.domain.labels import Label, parse_label
from shared.entrypoints.problems import answering, describe, json_response, problem_document, problem_response
from shared.entrypoints.wire_labels import is_array, read_array, read_csv, read_item
from shared.ports.clock import Clock
from shared.services.label_feed import LabelRow, take_rows
from shared.services.labelling import Labelling, LabelOutcome, LabelVerdict
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)

_JSON: Final = "application/json"
_CSV: Final = "text/csv"

WAITING: Final = 2
"""Requests that may wait for the ledger or hold it, per process: each takes a thread that the hubs' batches need too.
The worker has as many threads as processors and four."""

TURN_S: Final = 10.0
"""How long a request waits for the ledger, seconds; a batch of a hub takes far less, unless the database is away."""


@dataclass(frozen=True, slots=True)
class LabelLimits:
    """What a request may bring.

    Attributes:
        body_bytes: Largest body.
        rows: Rows of one request at most.
        turn_s: How long it waits for the ledger, seconds.
    """

    body_bytes: int = 1 << 20
    rows: int = 1000
    turn_s: float = TURN_S


class LabelRoutes:
    """`POST labels`."""

    def __init__(self, labelling: Labelling, turn: Lock, clock: Clock, limits: LabelLimits | None = None) -> None:
        """Take what the hubs' batches are taken with.

        Args:
            labelling: Records labels; its ledger is for one thread at a time.
            turn: Held while it is used; the same as that of the hubs' batches.
            clock: Ours.
            limits: What a request may bring.
        """
        self._labelling = labelling
        self._turn = turn
        self._clock = clock
        self._limits = limits or LabelLimits()
        self._waiting = BoundedSemaphore(WAITING)
        self.post = answering(self._post)

    def _post(self, request: func.HttpRequest) -> func.HttpResponse:
        kind, _, parameters = request.headers.get("content-type", "").partition(";")
        kind = kind.strip().lower()
        if kind not in {_JSON, _CSV} or not _is_utf8(parameters):
            rule = f"must be {_JSON} or {_CSV}, in UTF-8"
            status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
            return problem_response(status, f"the content type {rule}", field="content-type", rule=rule)
        body = request.get_body()
        if len(body) > self._limits.body_bytes:
            rule = f"must not be longer than {self._limits.body_bytes} bytes; it has {len(body)}"
            return problem_response(HTTPStatus.CONTENT_TOO_LARGE, f"the body {rule}", field="", rule=rule)
        now_us = self._clock.now_us()
        if kind == _CSV:
            return self._many(read_csv(body, now_us))
        if is_array(body):
            return self._many(read_item(item, now_us) for item in read_array(body, self._limits.body_bytes))
        return self._one(parse_label(parse_object(body, self._limits.body_bytes), now_us))

    def _one(self, label: Label) -> func.HttpResponse:
        (verdict,) = self._take([label])
        if verdict.error is not None:
            raise verdict.error
        return json_response({"transaction_id": label.transaction_id, "outcome": verdict.outcome.value})

    def _many(self, given: Iterable[LabelRow]) -> func.HttpResponse:
        rows = list(islice(given, self._limits.rows + 1))
        if not rows:
            raise InvalidInput("", "must hold at least one label")
        if len(rows) > self._limits.rows:
            raise InvalidInput("", f"must not hold more than {self._limits.rows} labels")
        verdicts = self._take(rows)
        counts = Counter(verdict.outcome for verdict in verdicts)
        results = [_result(number, *pair) for number, pair in enumerate(zip(rows, verdicts, strict=True), start=1)]
        document = {**{outcome.value: counts[outcome] for outcome in LabelOutcome}, "results": results}
        return json_response(document, HTTPStatus.MULTI_STATUS if counts[LabelOutcome.REFUSED] else HTTPStatus.OK)

    def _take(self, rows: list[LabelRow]) -> list[LabelVerdict]:
        """Record in turn with the hubs' batches.

        Raises:
            Overloaded: Too many wait already, or the turn did not come; nothing was recorded.
        """
        if not self._waiting.acquire(blocking=False):
            raise Overloaded("other requests with labels are waiting")
        try:
            if not self._turn.acquire(timeout=self._limits.turn_s):
                raise Overloaded("the ledger is taken")
            try:
                verdicts = take_rows(self._labelling, rows)
            finally:
                self._turn.release()
        finally:
            self._waiting.release()
        counts = Counter(verdict.outcome.value for verdict in verdicts)
        _log.info(with_fields("labels received", rows=len(rows), **counts))
        return verdicts


def label_routes(routes_of: Callable[[], LabelRoutes]) -> func.Blueprint:
    """`POST labels`, with a function key.

    Args:
        routes_of: Called by each request, so that the app is built at its first use and not at import.
    """
    routes = func.Blueprint()  # type: ignore[no-untyped-call]  # the library left it untyped

    # No coroutine: the worker runs it in a thread, because it waits for the ledger and for the database.
    @routes.function_name("post_labels")
    @routes.route(route="labels", methods=["POST"], auth_level=func.AuthLevel.FUNCTION)
    def post_labels(req: func.HttpRequest) -> func.HttpResponse:
        return routes_of().post(req)

    return routes


def _is_utf8(parameters: str) -> bool:
    """Whether the parameters of a content type leave the encoding at UTF-8; others, such as CSV's `header`, may be."""
    names = (part.strip().lower().replace('"', "") for part in parameters.split(";"))
    return all(name in {"charset=utf-8", "charset=us-ascii"} for name in names if name.startswith("charset="))


def _result(number: int, row: LabelRow, verdict: LabelVerdict) -> dict[str, object]:
    """What one row is answered; `row` counts from 1 and leaves the header out."""
    named = {"transaction_id": row.transaction_id} if isinstance(row, Label) else {}
    result: dict[str, object] = {"row": number, **named, "outcome": verdict.outcome.value}
    if verdict.error is not None:
        status, detail, members = describe(verdict.error)
        result["problem"] = problem_document(status, detail, **members)
    return result
