"""How a decision looks on the wire: a pure function of its record, so that a repeat gets the same bytes at any time.

Nothing of the moment enters: no clock, no duration, no process. Texts of reasons and names of features come from the
catalogue, which only grows.
"""

from __future__ import annotations

import json
import math
import struct
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple

from shared.domain.decision import DecidingPolicy, RuleHit
from shared.domain.decision_record import DecisionRecord, Lateness
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import VIEWS
from shared.domain.instants import format_instant
from shared.domain.reasons import CATALOGUE, Reason

type Document = dict[str, Any]

_FLOAT32: Final = struct.Struct("<f")
_ENCODE: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_SIX_DIGITS: Final = 1e6


def encode(document: object) -> bytes:
    """JSON in one form: no spaces, keys in the order of the document, shortest digits that give the number back.

    Raises:
        BrokenInvariant: A number is not finite.
    """
    try:
        return _ENCODE(document).encode("ascii")
    except ValueError as error:
        raise BrokenInvariant(f"an answer holds what JSON has no number for: {error}") from error


def decision_body(record: DecisionRecord) -> bytes:
    """What a caller is answered, in the form of `encode`.

    Put together from parts, because most of it is the same in all decisions of a model and a policy: a document that
    is made and encoded each time cost more than twice as much, a tenth of a request (measured).

    Raises:
        BrokenInvariant: The record names a view or a reason code that this release does not know, or holds a number
            that is not finite.
    """
    decision = record.decision
    score = decision.score
    known = _known_reasons(record.view)
    reasons = ",".join([_reason(known, record.vector, reason) for reason in record.reasons])
    body = (
        f'{{"transaction_id":{_ENCODE(record.transaction_id)},"event_time":"{format_instant(record.event_time_us)}",'
        f'"decision":"{decision.outcome.value}","score":{_number(score.probability)},'
        f'"raw_score":{_number(shortest(record.raw_score))},"reasons":[{reasons}],"others":{_number(record.others)},'
        f'"base":{_number(record.base)},"model":{_model(record.model_name, record.model_version, score.bundle_digest)},'
        f'"policy":{_policy(decision.policy)},"rules":{_rules(decision.rules_version, decision.rule_hits)},'
        f'"late_for":{_late_for(record.lateness)}}}'
    )
    return body.encode("ascii")


def decision_document(record: DecisionRecord) -> Document:
    """The same, read.

    Raises:
        BrokenInvariant: As for `decision_body`.
    """
    document: Document = json.loads(decision_body(record))
    return document


def known_document(record: DecisionRecord) -> Document:
    """All that a decision knew: the answer, every feature, the versions it read, and what it was computed with.

    Raises:
        BrokenInvariant: As for `decision_document`.
    """
    vector = record.vector
    features = {name: _value(vector, place) for name, place in _places(record.view).items()}
    return {
        **decision_document(record),
        "amount_minor": record.amount_minor,
        "currency": record.currency,
        "customer": {"surrogate": record.customer, "version": record.customer_version},
        "terminal": {"surrogate": record.terminal, "version": record.terminal_version},
        "view": record.view,
        "features": features,
        "fingerprint": record.fingerprint.hex(),
    }


def shortest(value: float) -> float:
    """The shortest decimal that gives a binary32 number back.

    >>> shortest(struct.unpack("<f", struct.pack("<f", 0.1))[0])
    0.1
    """
    if value.is_integer() and abs(value) < _SIX_DIGITS:  # counts, amounts, flags: six digits or fewer are exact
        return value
    stored = _FLOAT32.pack(value)
    for digits in (6, 7, 8):
        rounded = float(f"{value:.{digits}g}")
        if _FLOAT32.pack(rounded) == stored:
            return rounded
    return float(f"{value:.9g}")  # nine digits always do (IEEE 754-2019, section 5.12.2)


class _Known(NamedTuple):
    """What all reasons of one code have in common: the feature's place in the view, and the text up to its value."""

    place: int
    text: str


@cache
def _known_reasons(view: str) -> dict[str, _Known]:
    """By code."""
    places, known = _places(view), {}
    for feature, (code, text) in CATALOGUE.items():
        if feature in places:
            head = _ENCODE({"code": code, "text": text, "feature": feature})
            known[code] = _Known(places[feature], f'{head[:-1]},"value":')
    return known


def _reason(known: dict[str, _Known], vector: bytes, reason: Reason) -> str:
    if reason.code not in known:
        raise BrokenInvariant(f"no feature of the view has reason code {reason.code}")
    place, text = known[reason.code]
    value = _value(vector, place)
    told = "null" if value is None else _number(value)
    return f'{text}{told},"contribution":{_number(reason.contribution)}}}'


@lru_cache(maxsize=64)
def _model(name: str, version: int, digest: str) -> str:
    return _ENCODE({"name": name, "version": version, "digest": digest})


@lru_cache(maxsize=64)
def _policy(policy: DecidingPolicy) -> str:
    return _ENCODE({"name": policy.name, **policy.parameters})


@lru_cache(maxsize=64)
def _rules(version: str, hits: tuple[RuleHit, ...]) -> str:
    told = [{"rule_id": hit.rule_id, "outcome": hit.outcome.value} for hit in hits]
    return _ENCODE({"version": version, "hits": told})


@cache
def _late_for(lateness: Lateness) -> str:
    return _ENCODE(
        [flag.name.lower() for flag in (Lateness.CUSTOMER, Lateness.TERMINAL) if flag in lateness and flag.name]
    )


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise BrokenInvariant(f"an answer holds what JSON has no number for: {value}")
    return repr(value)


def _value(vector: bytes, place: int) -> float | None:
    """A feature's value; None where it is missing."""
    (value,) = _FLOAT32.unpack_from(vector, 4 * place)
    return shortest(value) if math.isfinite(value) else None


@cache
def _places(view: str) -> dict[str, int]:
    """Feature names to their places in the vector."""
    if view not in VIEWS:
        raise BrokenInvariant(f"no feature view is named {view}")
    return {name: place for place, name in enumerate(VIEWS[view].names)}
