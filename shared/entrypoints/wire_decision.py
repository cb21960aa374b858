"""How a decision looks on the wire: a pure function of its record, so that a repeat gets the same bytes at any time.

Nothing of the moment enters: no clock, no duration, no process. Texts of reasons and names of features come from the
catalogue, which only grows.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any, Final

from shared.domain.decision_record import DecisionRecord, Lateness
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import VIEWS
from shared.domain.instants import format_instant
from shared.domain.reasons import CATALOGUE

type Document = dict[str, Any]

_FEATURES: Final = {code: (feature, text) for feature, (code, text) in CATALOGUE.items()}
_PLACES: Final = {view.name: {name: place for place, name in enumerate(view.names)} for view in VIEWS.values()}
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


def decision_document(record: DecisionRecord) -> Document:
    """What a caller is answered.

    Raises:
        BrokenInvariant: The record names a view or a reason code that this release does not know.
    """
    decision = record.decision
    score, policy = decision.score, decision.policy
    places, vector = _places(record.view), record.vector
    return {
        "transaction_id": record.transaction_id,
        "event_time": format_instant(record.event_time_us),
        "decision": decision.outcome.value,
        "score": score.probability,
        "raw_score": shortest(record.raw_score),
        "reasons": [_reason(reason.code, reason.contribution, places, vector) for reason in record.reasons],
        "others": record.others,
        "base": record.base,
        "model": {"name": record.model_name, "version": record.model_version, "digest": score.bundle_digest},
        "policy": {"name": policy.name, **policy.parameters},
        "rules": {
            "version": decision.rules_version,
            "hits": [{"rule_id": hit.rule_id, "outcome": hit.outcome.value} for hit in decision.rule_hits],
        },
        "late_for": _late_for(record.lateness),
    }


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


def _reason(code: str, contribution: float, places: dict[str, int], vector: bytes) -> Document:
    try:
        feature, text = _FEATURES[code]
        place = places[feature]
    except KeyError as error:
        raise BrokenInvariant(f"no feature of the view has reason code {code}") from error
    return {
        "code": code,
        "text": text,
        "feature": feature,
        "value": _value(vector, place),
        "contribution": contribution,
    }


def _value(vector: bytes, place: int) -> float | None:
    """A feature's value; None where it is missing."""
    (value,) = _FLOAT32.unpack_from(vector, 4 * place)
    return shortest(value) if math.isfinite(value) else None


def _places(view: str) -> dict[str, int]:
    try:
        return _PLACES[view]
    except KeyError as error:
        raise BrokenInvariant(f"no feature view is named {view}") from error


def _late_for(lateness: Lateness) -> list[str]:
    return [flag.name.lower() for flag in (Lateness.CUSTOMER, Lateness.TERMINAL) if flag in lateness and flag.name]
