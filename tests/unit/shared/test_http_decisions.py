"""Decisions looked up, models and the description, from the request to the answer."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import azure.functions as func
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.domain.bundle_manifest import Thresholds
from shared.domain.bundle_pointer import Pointer, Role
from shared.domain.cost_policy import Capacity, CostPolicy, FittedCapacity
from shared.domain.decision import Policy
from shared.domain.decision_record import DecisionRecord, Lateness, decision_bytes, read_decision
from shared.domain.errors import BrokenInvariant, InvalidInput, NotFound, Transient
from shared.domain.feature_view import CARD_V1
from shared.domain.identifiers import TransactionId
from shared.domain.policy_choice import Advice, PolicyRule
from shared.domain.reasons import Reason
from shared.domain.transaction import Acceptance, parse_transaction
from shared.entrypoints.http_decisions import look_up
from shared.entrypoints.http_docs import description, page
from shared.entrypoints.http_models import given_roles, models
from shared.entrypoints.wire_decision import decision_document, encode, known_document, shortest
from shared.entrypoints.wire_shapes import GivenRoles, KnownDecision, Models
from shared.services.replaying import Difference, Replay, ReplayVerdict
from shared.services.scoring import Decided, Scoring
from shared.services.succession_roles import RoleState
from tests.fakes.ledger import FakeLedger
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers, LinearScorer
from tests.unit.shared.test_http_score import KEYS


@pytest.fixture(scope="module")
def data() -> bytes:
    """Canonical bytes of a decision."""
    clock = FakeClock()
    scoring = Scoring(FakeLedger(), FixedScorers(), policy=Policy(0.3, 0.8), keys=KEYS, clock=clock)
    fields = {
        "transaction_id": "a/b",
        "customer_id": "c",
        "terminal_id": "m",
        "amount_minor": 100,
        "currency": "EUR",
        "event_time": "2023-11-14T00:00:00Z",
    }
    (verdict,) = scoring.decide([parse_transaction(fields, Acceptance("EUR", clock.time_us))])
    assert isinstance(verdict, Decided)
    return verdict.data


@dataclass
class Stored:
    """Decisions in memory."""

    kept: dict[str, bytes] = field(default_factory=dict)

    def find(self, transaction_id: TransactionId) -> bytes | None:
        return self.kept.get(transaction_id)


def equal(data: bytes) -> Replay:
    return Replay(read_decision(data), ReplayVerdict.EQUAL)


def asked(identifier: str, **params: str) -> func.HttpRequest:
    return func.HttpRequest("GET", "http://x", route_params={"transaction_id": identifier}, params=params, body=b"")


def read(response: func.HttpResponse) -> Any:
    return json.loads(response.get_body())


def test_all_that_a_decision_knew(data: bytes) -> None:
    answer = look_up(asked("a/b"), Stored({"a/b": data}), equal)
    KnownDecision.model_validate_json(answer.get_body())
    document = read(answer)
    assert list(document["features"]) == list(CARD_V1.names)
    assert document["features"]["amount"] == 100.0
    assert document["features"]["amount_to_median_30d"] is None
    assert (document["amount_minor"], document["currency"], document["view"]) == (100, "EUR", "card-v1")
    assert document["customer"]["surrogate"].startswith("k1.")
    assert document["customer"]["version"] == 0
    assert decision_document(read_decision(data)).items() <= document.items()


@pytest.mark.parametrize("given", ["a/b", "a%2Fb", "a%2fb"])
def test_a_slash_may_come_encoded(data: bytes, given: str) -> None:
    assert look_up(asked(given), Stored({"a/b": data}), equal).status_code == 200


def test_what_is_not_there(data: bytes) -> None:
    with pytest.raises(NotFound):
        look_up(asked("b"), Stored({"a/b": data}), equal)
    with pytest.raises(InvalidInput, match="transaction_id"):
        look_up(asked("a b"), Stored(), equal)
    with pytest.raises(InvalidInput, match="replay must be true or false"):
        look_up(asked("a/b", replay="yes"), Stored({"a/b": data}), equal)


def test_a_replay_tells_what_came_out_otherwise(data: bytes) -> None:
    def other(_: bytes) -> Replay:
        difference = Difference("raw_score", "0.5", "0.25")
        return Replay(None, ReplayVerdict.DIFFERENT, (difference,))

    answer = look_up(asked("a/b", replay="true"), Stored({"a/b": data}), other)
    KnownDecision.model_validate_json(answer.get_body())
    assert read(answer)["replay"] == {
        "verdict": "different",
        "obstacle": "",
        "differences": [{"field": "raw_score", "stored": "0.5", "replayed": "0.25"}],
    }


def test_lateness_is_told(data: bytes) -> None:
    record = replace(read_decision(data), lateness=Lateness.CUSTOMER | Lateness.TERMINAL)
    assert decision_document(record)["late_for"] == ["customer", "terminal"]


@pytest.mark.parametrize(
    "change",
    [
        {"view": "nobody-v1"},
        {"reasons": (Reason("Z99", 1.0),)},
        {"view": "handbook-v1", "reasons": (Reason("A02", 1.0),)},
    ],
)
def test_a_record_of_another_release_is_refused(data: bytes, change: dict[str, Any]) -> None:
    record: DecisionRecord = replace(read_decision(data), **change)
    assert decision_bytes(record)
    with pytest.raises(BrokenInvariant):
        known_document(record)


def significant(text: str) -> int:
    """Digits of a number without the noughts at its ends."""
    return len(Decimal(text).normalize().as_tuple().digits)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
@example(999999986991104.0)  # 1000000000000000.0 is one digit and a character longer
def test_the_shortest_number_gives_every_bit_back(value: float) -> None:
    text = encode(shortest(value)).decode()
    assert struct.pack("<f", float(text)) == struct.pack("<f", value)
    assert significant(text) <= significant(encode(value).decode())


class Source:
    """A source of models in memory."""

    def __init__(self, scorers: FixedScorers, problem: str = "") -> None:
        self.current = scorers.current
        self.problem = problem
        self.refusal = None

    def refresh(self) -> bool:
        return False


class Roles:
    """Roles in memory."""

    def __init__(self, *states: RoleState) -> None:
        self._states = states

    def states(self) -> tuple[RoleState, ...]:
        return self._states


def test_models_are_told_also_when_there_is_none() -> None:
    rule = PolicyRule(Policy(0.3, 0.8))
    answer = models(Source(FixedScorers(None), "no bundle is champion"), Roles(), rule)
    assert read(answer) == {"serving": None, "problem": "no bundle is champion", "roles": []}
    found = models(Source(FixedScorers()), Roles(), rule)
    Models.model_validate_json(found.get_body())
    assert read(found)["serving"]["name"] == "linear"


def test_who_gave_a_role_is_told_to_operators_alone() -> None:
    """A function key is what every caller has; logins and what people wrote are none of their business."""
    pointer = Pointer(Role.CHAMPION, "c" * 64, 3, 1_700_000_000_000_000, "ada@bank.example", "Grace saw it, ticket 17")
    book, source = Roles(RoleState(pointer, "golden", 2)), Source(FixedScorers())
    told = models(source, book, PolicyRule(Policy(0.3, 0.8)))
    Models.model_validate_json(told.get_body())
    (role,) = read(told)["roles"]
    assert (role["digest"], role["name"], role["version"]) == (pointer.digest, "golden", 2)
    for secret in (b"ada", b"bank", b"Grace", b"ticket"):
        assert secret not in told.get_body()
    given = given_roles(source, book)
    GivenRoles.model_validate_json(given.get_body())
    assert read(given) == {"problem": "", "roles": [{**role, "by": pointer.author, "reason": pointer.reason}]}


def test_roles_that_cannot_be_read_are_told_as_such() -> None:
    class Away(Roles):
        def states(self) -> tuple[RoleState, ...]:
            raise Transient("the store is away")

    assert read(given_roles(Source(FixedScorers()), Away())) == {"problem": "the store is away", "roles": None}


def test_models_are_told_with_the_policy_that_they_bring() -> None:
    asked = Capacity(50)
    fitted = FittedCapacity(asked, CostPolicy(shadow_price_minor=1_300))
    scorer = LinearScorer(advice=Advice(Thresholds(0.2, 0.6), fitted))
    rules = (PolicyRule(CostPolicy(), asked), PolicyRule(CostPolicy(), Capacity(25)), PolicyRule(Policy(0.3, 0.8)))
    answers = [models(Source(FixedScorers(scorer)), Roles(), rule) for rule in rules]
    for answer in answers:
        Models.model_validate_json(answer.get_body())
    served = [read(answer)["serving"] for answer in answers]
    assert [found["policy"].get("review_shadow_price_minor") for found in served] == [1_300, 0, None]
    assert [found["policy_from"] for found in served] == ["bundle", "settings", "settings"]
    assert [found["policy_note"] for found in served] == ["", "the bundle's shadow price is for 50 reviews a day", ""]


def test_the_page_shows_what_the_description_says() -> None:
    document, text = read(description("9.9")), page("9.9").get_body().decode()
    assert document["info"]["version"] == "9.9"
    assert all(path in text for path in document["paths"])
    assert all(f'id="{name}"' in text for name in document["components"]["schemas"])
    assert "<script" not in text
    assert "http" not in text
