"""Scoring over HTTP: one transaction, or up to a thousand, each answered once its decision is durable.

The body of an answer is a function of the stored record alone; what belongs to the moment travels in headers:
`Idempotent-Replayed` says that the decision was there before, `Server-Timing` where the time went.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

import azure.functions as func

from shared.domain.errors import BrokenInvariant, InvalidInput, TollgateError, Transient
from shared.domain.event import parse_object
from shared.domain.transaction import ALLOWED_LATENESS_US, Acceptance, Transaction, parse_transaction
from shared.entrypoints.http_score_front import Front, Timed
from shared.entrypoints.problems import describe, problem_document, problem_response
from shared.entrypoints.wire_decision import Document, decision_body, encode
from shared.ports.clock import Clock
from shared.services.batching import Batching, Unit
from shared.services.metering import Meters
from shared.services.metering_decisions import note_unit
from shared.services.scoring import Decided, Refused, Verdict
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)

_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """What a request may bring.

    Attributes:
        body_bytes: Largest body.
        transactions: Transactions in one request at most.
        age_us: How long ago a transaction may have happened, microseconds.
    """

    body_bytes: int = 1 << 20
    transactions: int = 1000
    age_us: int = ALLOWED_LATENESS_US


class ScoreRoutes:
    """`POST score` and `POST score/batch`."""

    def __init__(self, batching: Batching, front: Front, clock: Clock, currency: str, limits: BodyLimits) -> None:
        self._batching = batching
        self._front = front
        self._clock = clock
        self._currency = currency
        self._limits = limits

    async def one(self, request: func.HttpRequest) -> func.HttpResponse:
        """Score one transaction: 200 with the decision, or the problem."""
        return await self._front.run("score", request, self._one)

    async def many(self, request: func.HttpRequest) -> func.HttpResponse:
        """Score up to a thousand: 200 with a verdict for each, in their order.

        503 if none of them could be decided for a reason that passes, so that a client can simply send it again.
        """
        return await self._front.run("score_batch", request, self._many)

    async def _one(self, request: func.HttpRequest) -> func.HttpResponse | Timed:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        fields = parse_object(request.get_body(), self._limits.body_bytes)
        answered = await self._batching.decide((parse_transaction(fields, self._acceptance()),))
        verdict = answered.verdicts[0]
        if isinstance(verdict, Refused):
            raise verdict.error
        headers = {"Idempotent-Replayed": "true"} if verdict.repeated else {}
        return Timed(_body(verdict), headers, answered.stages)

    async def _many(self, request: func.HttpRequest) -> func.HttpResponse | Timed:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        items = self._items(parse_object(request.get_body(), self._limits.body_bytes))
        acceptance = self._acceptance()
        accepted: list[Transaction] = []
        results: list[bytes | None] = []
        for item in items:
            try:
                accepted.append(parse_transaction(_as_object(item), acceptance))
                results.append(None)
            except InvalidInput as error:
                results.append(encode(_problem(error)))
        answered = await self._batching.decide(accepted)
        verdicts = iter(answered.verdicts)
        told = [_result(next(verdicts)) if result is None else result for result in results]
        errors = [verdict.error for verdict in answered.verdicts if isinstance(verdict, Refused)]
        if errors and len(errors) == len(items) and all(isinstance(error, Transient) for error in errors):
            raise errors[0]
        return Timed(b'{"results":[' + b",".join(told) + b"]}", {}, answered.stages)

    def _refusal(self, request: func.HttpRequest) -> func.HttpResponse | None:
        """What cannot be read at all: another media type, or a body beyond the limit."""
        if not _is_json(request.headers.get("content-type", "")):
            return problem_response(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"the body must be {_JSON}",
                field="content-type",
                rule=f"must be {_JSON}",
            )
        size = len(request.get_body())
        if size > self._limits.body_bytes:
            rule = f"must not be longer than {self._limits.body_bytes} bytes; it has {size}"
            return problem_response(HTTPStatus.CONTENT_TOO_LARGE, f"the body {rule}", field="", rule=rule)
        return None

    def _items(self, fields: Mapping[str, object]) -> list[object]:
        unknown = [name for name in fields if name != "transactions"]
        if unknown:
            raise InvalidInput(unknown[0][:64], "is not a known field")
        items = fields.get("transactions")
        if not isinstance(items, list) or not items:
            raise InvalidInput("transactions", "must be a list of at least one transaction")
        if len(items) > self._limits.transactions:
            raise InvalidInput(
                "transactions", f"must not be more than {self._limits.transactions}; there are {len(items)}"
            )
        return items

    def _acceptance(self) -> Acceptance:
        return Acceptance(self._currency, self._clock.now_us(), lateness_us=self._limits.age_us)


def write_bodies(decisions: Sequence[Decided]) -> None:
    """Write what callers will be answered, while the decisions are being stored.

    One that cannot be written is told to its caller, who has it written again.
    """
    for decided in decisions:
        with suppress(BrokenInvariant):
            decided.body = decision_body(decided.record)


def unit_notes(meters: Meters) -> Callable[[Unit], None]:
    """What is told of each unit of work: its counts, and a line of log."""

    def noting(unit: Unit) -> None:
        note_unit(meters, unit)
        _log_unit(unit)

    return noting


def _log_unit(unit: Unit) -> None:
    """Log a unit of work: one line with every id in it, and nothing that tells of a person or a payment.

    A line for each decision would cost more than reading its request, and where a host samples what it forwards, most
    of them would be lost.
    """
    for verdict in unit.verdicts:
        if isinstance(verdict, Refused):
            error = type(verdict.error).__name__
            _log.info(with_fields("not decided", transaction_id=verdict.transaction_id, error=error))
    if _log.isEnabledFor(logging.INFO):
        decisions = [_line(verdict) for verdict in unit.verdicts if isinstance(verdict, Decided)]
        if decisions:
            seconds = round(sum(unit.stages.values()), 6)
            _log.info(with_fields("decided", count=len(decisions), seconds=seconds, decisions=decisions))


def _line(verdict: Decided) -> Document:
    record = verdict.record
    score = record.decision.score
    line: Document = {
        "transaction_id": record.transaction_id,
        "decision": record.decision.outcome,
        "score": score.probability,
        "model": f"{record.model_name}/{record.model_version}/{score.bundle_digest[:12]}",
    }
    if verdict.repeated:
        line["repeated"] = True
    if record.lateness:
        line["late"] = record.lateness.value
    return line


def _is_json(content_type: str) -> bool:
    if content_type == _JSON:
        return True
    media_type, _, parameters = content_type.lower().partition(";")
    return media_type.strip() == _JSON and parameters.strip().replace('"', "") in {"", "charset=utf-8"}


def _as_object(item: object) -> Mapping[str, object]:
    if not isinstance(item, dict):
        raise InvalidInput("", "must be a JSON object")
    return item


def _result(verdict: Verdict) -> bytes:
    """One item's verdict: the status it would have had alone, with the decision or the problem."""
    if isinstance(verdict, Decided):
        replayed = b"true" if verdict.repeated else b"false"
        return b'{"status":200,"replayed":' + replayed + b',"decision":' + _body(verdict) + b"}"
    return encode({**_problem(verdict.error), "transaction_id": verdict.transaction_id})


def _body(verdict: Decided) -> bytes:
    return decision_body(verdict.record) if verdict.body is None else verdict.body


def _problem(error: TollgateError) -> Document:
    if isinstance(error, BrokenInvariant):
        _log.error("a transaction cannot be decided", exc_info=error)
    status, detail, members = describe(error)
    return {"status": int(status), "problem": problem_document(status, detail, **members)}
