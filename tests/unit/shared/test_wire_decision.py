"""How decisions look on the wire: JSON that gives every value back, and nothing that is no number."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.canonical import digest_of
from shared.domain.cost_policy import CostPolicy, Costs
from shared.domain.decision import STRICTNESS, Decision, Outcome, Policy, RuleHit
from shared.domain.decision_record import DecisionRecord, Lateness
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import VIEWS
from shared.domain.identifiers import TransactionId
from shared.domain.instants import format_instant
from shared.domain.reasons import CATALOGUE, Reason
from shared.domain.score import Score
from shared.domain.surrogates import Surrogate
from shared.entrypoints.timer_outbox import DECISION_TYPE, render
from shared.entrypoints.wire_decision import decision_body, decision_document, encode, shortest

FINITE = st.floats(allow_nan=False, allow_infinity=False)
SINGLE = st.floats(width=32)
OUTCOMES = st.sampled_from(STRICTNESS)
POLICIES = st.one_of(
    st.floats(1e-9, 1.0).map(lambda threshold: Policy(threshold / 2, threshold)),
    st.builds(CostPolicy, st.builds(Costs, review_minor=st.integers(1, 10_000), declines=st.booleans())),
)

LATE = {Lateness.CUSTOMER: "customer", Lateness.TERMINAL: "terminal"}

RECORD = DecisionRecord(
    transaction_id=TransactionId("t-1"),
    customer=Surrogate("k1.abc"),
    terminal=Surrogate("k1.def"),
    event_time_us=0,
    amount_minor=100,
    currency="EUR",
    customer_version=0,
    terminal_version=0,
    view="card-v1",
    vector=bytes(4 * len(VIEWS["card-v1"].names)),
    lateness=Lateness.NONE,
    model_name="cards",
    model_version=1,
    raw_score=0.5,
    decision=Decision(Outcome.APPROVE, Score(0.25, "a" * 64), Policy(0.5, 0.9), "rules-0"),
    base=0.0,
    reasons=(),
    others=0.0,
    fingerprint=digest_of(b""),
)


@st.composite
def records(draw: st.DrawFn) -> DecisionRecord:
    """Records with anything in them that a caller is told."""
    view = draw(st.sampled_from(sorted(VIEWS)))
    names = VIEWS[view].names
    reasons = draw(st.lists(st.tuples(st.sampled_from(names), FINITE), max_size=4, unique_by=lambda item: item[0]))
    hits = draw(st.lists(st.builds(RuleHit, st.text(max_size=8), OUTCOMES), max_size=2))
    decision = Decision(
        draw(OUTCOMES),
        Score(draw(st.floats(0.0, 1.0)), draw(st.sampled_from(("a" * 64, "0b" * 32)))),
        draw(POLICIES),
        draw(st.sampled_from(("rules-0", 'rules-"1"'))),
        tuple(hits),
    )
    return replace(
        RECORD,
        transaction_id=TransactionId(draw(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))),
        event_time_us=draw(st.integers(0, 4_000_000_000_000_000)),
        view=view,
        vector=struct.pack(f"<{len(names)}f", *draw(st.lists(SINGLE, min_size=len(names), max_size=len(names)))),
        lateness=Lateness(draw(st.integers(0, 3))),
        model_name=draw(st.text(max_size=8)),
        model_version=draw(st.integers(1, 1_000_000)),
        raw_score=draw(st.floats(0.0, 1.0, width=32)),
        decision=decision,
        base=draw(FINITE),
        reasons=tuple([Reason(CATALOGUE[name][0], contribution) for name, contribution in reasons]),
        others=draw(FINITE),
    )


def expected(record: DecisionRecord) -> dict[str, Any]:
    """What docs/api.md says a caller is answered."""
    decision, names = record.decision, VIEWS[record.view].names
    values = dict(zip(names, struct.unpack(f"<{len(names)}f", record.vector), strict=True))
    told = {code: (feature, text) for feature, (code, text) in CATALOGUE.items()}
    reasons = []
    for reason in record.reasons:
        feature, text = told[reason.code]
        value = shortest(values[feature]) if math.isfinite(values[feature]) else None
        contribution = reason.contribution
        reasons.append(
            {"code": reason.code, "text": text, "feature": feature, "value": value, "contribution": contribution}
        )
    late = record.lateness
    return {
        "transaction_id": record.transaction_id,
        "event_time": format_instant(record.event_time_us),
        "decision": str(decision.outcome),
        "score": decision.score.probability,
        "raw_score": shortest(record.raw_score),
        "reasons": reasons,
        "others": record.others,
        "base": record.base,
        "model": {"name": record.model_name, "version": record.model_version, "digest": decision.score.bundle_digest},
        "policy": {"name": decision.policy.name, **decision.policy.parameters},
        "rules": {
            "version": decision.rules_version,
            "hits": [{"rule_id": hit.rule_id, "outcome": str(hit.outcome)} for hit in decision.rule_hits],
        },
        "late_for": [name for flag, name in LATE.items() if flag in late],
    }


@given(records())
def test_what_is_sent_is_the_document_byte_for_byte(record: DecisionRecord) -> None:
    document = expected(record)
    assert decision_body(record) == encode(document)
    assert decision_document(record) == document
    assert render(record) == encode({"type": DECISION_TYPE, "customer": record.customer, **document})


@pytest.mark.parametrize(
    "change",
    [
        *({field: value} for field in ("base", "others", "raw_score") for value in (math.nan, math.inf, -math.inf)),
        {"reasons": (Reason("A01", math.nan),)},
        {"reasons": (Reason("Z99", 1.0),)},
        {"view": "nobody-v1"},
    ],
)
def test_what_is_no_number_and_what_is_not_known_is_never_written(change: dict[str, Any]) -> None:
    assert decision_body(RECORD)
    with pytest.raises(BrokenInvariant):
        decision_body(replace(RECORD, **change))
