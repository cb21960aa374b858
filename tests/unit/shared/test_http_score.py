"""Scoring over HTTP, from the request to the answer, over the ledger in memory and a small real model."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import azure.functions as func
import pytest

from shared.adapters.fibres import Fibres
from shared.domain.cost_policy import CostPolicy, Costs
from shared.domain.decision import Policy
from shared.domain.decision_record import read_decision
from shared.domain.errors import BrokenInvariant, Transient
from shared.domain.feature_view import CARD_V1
from shared.domain.identifiers import TransactionId
from shared.domain.instants import US_PER_DAY, format_instant
from shared.domain.surrogates import KeyRing, SurrogateKey
from shared.domain.transaction import FUTURE_TOLERANCE_US
from shared.entrypoints.http_score import BodyLimits, ScoreRoutes, unit_notes, write_bodies
from shared.entrypoints.http_score_front import Front
from shared.entrypoints.wire_cors import Cors
from shared.entrypoints.wire_decision import decision_body, decision_document, encode
from shared.entrypoints.wire_shapes import Decision, Results
from shared.services.batching import Batching, BatchLimits, Foretell
from shared.services.metering import PREDICTIONS, REPEATS, REQUESTS, Meters
from shared.services.scoring import Decided, Scoring
from shared.services.stages import StageTimes
from tests.fakes.bundles import trained_scorer
from tests.fakes.counts import FakeCells
from tests.fakes.ledger import FakeLedger
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers, LinearScorer

KEYS = KeyRing(SurrogateKey("k1", bytes(range(32))))
JSON = {"content-type": "application/json"}


@dataclass
class App:
    """The scoring routes with everything under them."""

    ledger: FakeLedger
    scorers: FixedScorers
    clock: FakeClock
    batching: Batching
    front: Front
    routes: ScoreRoutes

    def fields(self, name: str = "t-1", **changes: Any) -> dict[str, Any]:
        return {
            "transaction_id": name,
            "customer_id": "card-4711-of-somebody",
            "terminal_id": "terminal-at-the-corner",
            "amount_minor": 987_654,
            "currency": "EUR",
            "event_time": format_instant(self.clock.time_us),
            **changes,
        }

    def one(self, body: object, headers: dict[str, str] | None = None) -> func.HttpResponse:
        return asyncio.run(self.routes.one(request(body, headers)))

    def many(self, body: object) -> func.HttpResponse:
        return asyncio.run(self.routes.many(request(body)))

    def counted(self, family: Any, **labels: str) -> float:
        samples = self.front.meters.samples(family)
        return sum(sample.value for sample in samples if set(labels.items()) <= set(sample.labels))


def request(body: object, headers: dict[str, str] | None = None) -> func.HttpRequest:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return func.HttpRequest(
        "POST", "http://localhost/api/score", headers=JSON if headers is None else headers, body=data
    )


def read(response: func.HttpResponse) -> Any:
    return json.loads(response.get_body())


@pytest.fixture
def app() -> Iterator[App]:
    ledger, scorers, clock = FakeLedger(), FixedScorers(), FakeClock()
    scorers.scorer = trained_scorer()  # type: ignore[assignment]  # a real one in place of the linear one

    def make(stages: StageTimes, foretell: Foretell) -> Scoring:
        policy = Policy(0.3, 0.8)
        return Scoring(ledger, scorers, policy=policy, keys=KEYS, clock=clock, stages=stages, foretell=foretell)

    meters = Meters(FakeCells())
    batching = Batching(
        make, BatchLimits(deadline_s=60.0), runs=Fibres(), prepare=write_bodies, observe=unit_notes(meters)
    )
    front = Front(meters, Cors(frozenset({"https://console.example"})))
    routes = ScoreRoutes(batching, front, clock, "EUR", BodyLimits(body_bytes=4096, transactions=10))
    yield App(ledger, scorers, clock, batching, front, routes)
    batching.stop()


def test_a_decision_is_answered_explained_and_timed(app: App) -> None:
    response = app.one(app.fields())
    answer = read(response)
    assert (response.status_code, response.mimetype) == (200, "application/json")
    Decision.model_validate_json(response.get_body())
    assert answer["transaction_id"] == "t-1"
    assert answer["event_time"] == format_instant(app.clock.time_us)
    raw = answer["raw_score"]
    explained = answer["base"] + math.fsum(reason["contribution"] for reason in answer["reasons"]) + answer["others"]
    assert explained == pytest.approx(math.log(raw / (1 - raw)), abs=1e-4)
    scorer = trained_scorer()
    assert answer["model"] == {"name": scorer.name, "version": scorer.version, "digest": scorer.bundle_digest}
    assert answer["policy"] == {"name": "fixed-v1", "review_threshold": 0.3, "decline_threshold": 0.8}
    assert answer["rules"] == {"version": "rules-0", "hits": []}
    timings = response.headers["Server-Timing"]
    assert [part.split(";")[0].strip() for part in timings.split(",")] == [
        "queue", "claim", "features", "model", "record", "write", "total",
    ]  # fmt: skip
    assert "Idempotent-Replayed" not in response.headers
    assert list(app.ledger.tables.decisions) == ["t-1"]


def test_a_decision_by_expected_loss_is_answered_with_its_costs(app: App) -> None:
    app.one(app.fields())
    record = read_decision(app.ledger.tables.decisions[TransactionId("t-1")].record)
    policy = CostPolicy(Costs(declines=False), 750)
    answer = encode(decision_document(replace(record, decision=replace(record.decision, policy=policy))))
    Decision.model_validate_json(answer)
    assert json.loads(answer)["policy"] == {
        "name": "expected-loss-v1",
        "review_cost_minor": 500,
        "decline_margin_bp": 200,
        "goodwill_cost_minor": 2000,
        "declines": False,
        "review_shadow_price_minor": 750,
    }


def test_reasons_are_ranked_with_text_feature_and_value(app: App) -> None:
    reasons = read(app.one(app.fields()))["reasons"]
    assert reasons, "an amount this high has a reason"
    assert [reason["contribution"] for reason in reasons] == sorted(
        (reason["contribution"] for reason in reasons), reverse=True
    )
    amount = next(reason for reason in reasons if reason["feature"] == "amount")
    assert (amount["code"], amount["text"], amount["value"]) == ("A01", "The amount itself is unusual.", 987654.0)
    assert {reason["feature"] for reason in reasons} <= set(CARD_V1.names)


def test_a_repeat_gets_the_stored_answer_byte_for_byte(app: App) -> None:
    first = app.one(app.fields())
    app.scorers.scorer = LinearScorer("another", 9)
    app.clock.time_us += 3600 * 1_000_000
    fields = app.fields(event_time=read(first)["event_time"])
    reordered = dict(reversed(fields.items()))
    second = app.one(json.dumps(reordered, indent=3).encode())
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.get_body() == first.get_body()
    assert app.one(app.fields("t-2")).get_body() != first.get_body()
    assert (app.counted(PREDICTIONS), app.counted(REPEATS)) == (2, 1)


def test_another_body_under_the_same_id_is_a_conflict_and_changes_nothing(app: App) -> None:
    app.one(app.fields())
    response = app.one(app.fields(amount_minor=1))
    assert response.status_code == 409
    assert response.mimetype == "application/problem+json"
    assert (read(response)["field"], read(response)["status"]) == ("transaction_id", 409)
    assert app.ledger.tables.transactions["t-1"].transaction.amount_minor == 987_654  # type: ignore[index]


DAY_S = US_PER_DAY // 1_000_000


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [
        ({"currency": "USD"}, 422, "currency"),
        ({"currency": "dollars"}, 400, "currency"),
        ({"amount_minor": 0}, 400, "amount_minor"),
        ({"amount_minor": 12.0}, 400, "amount_minor"),
        ({"amount_minor": True}, 400, "amount_minor"),
        ({"customer_id": ""}, 400, "customer_id"),
        ({"event_time": "yesterday"}, 400, "event_time"),
        ({"event_time": format_instant(FakeClock().time_us + FUTURE_TOLERANCE_US + 1)}, 400, "event_time"),
        ({"event_time": format_instant(FakeClock().time_us - 7 * US_PER_DAY - 1)}, 400, "event_time"),
        ({"card_number": "4111111111111111"}, 400, "card_number"),
        ({"type": "tollgate.label"}, 400, "type"),
    ],
)
def test_what_breaks_a_rule_is_named(app: App, changes: dict[str, Any], status: int, field: str) -> None:
    response = app.one(app.fields(**changes))
    assert (response.status_code, read(response)["field"]) == (status, field)
    assert read(response)["rule"]
    assert not app.ledger.tables.decisions


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", None, 400),
        (b"", None, 400),
        (b"[]", None, 400),
        (b'{"a": NaN}', None, 400),
        (b'{"transaction_id": "a", "transaction_id": "b"}', None, 400),
        (b"\xff", None, 400),
        (b"{}", {}, 415),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"{}", {"content-type": "application/json; charset=latin-1"}, 415),
        (b"{}", {"content-type": 'Application/JSON; charset="UTF-8"'}, 400),
        (b" " * 4097, None, 413),
    ],
)
def test_what_cannot_be_read_is_refused(app: App, body: bytes, headers: dict[str, str] | None, status: int) -> None:
    response = app.one(body, headers)
    assert response.status_code == status
    assert response.mimetype == "application/problem+json"
    assert app.counted(REQUESTS, route="score", status=str(status)) == 1


def test_without_a_champion_it_is_503_and_then_it_works(app: App) -> None:
    champion, app.scorers.scorer = app.scorers.scorer, None
    response = app.one(app.fields())
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    app.scorers.scorer = champion
    assert app.one(app.fields()).status_code == 200


def test_faults_of_the_ledger_are_told_and_nothing_is_half_written(app: App) -> None:
    app.ledger.fault_at_write = BrokenInvariant("the secret address is wrong")
    response = app.one(app.fields())
    assert response.status_code == 500
    assert b"secret" not in response.get_body()
    assert not app.ledger.tables.transactions
    app.ledger.fault_at_write = Transient("lost")  # a single one is not even seen
    assert app.one(app.fields()).status_code == 200


def test_a_batch_answers_each_on_its_own(app: App) -> None:
    app.one(app.fields("known"))
    items = [
        app.fields("new"),
        app.fields("known"),
        app.fields("known", amount_minor=5),
        app.fields("bad", amount_minor=-1),
        "no object",
        app.fields("new"),
        app.fields("dollars", currency="USD"),
    ]
    response = app.many({"transactions": items})
    assert response.status_code == 200
    Results.model_validate_json(response.get_body())
    results = read(response)["results"]
    assert [result["status"] for result in results] == [200, 200, 409, 400, 400, 200, 422]
    assert [result.get("replayed") for result in results] == [False, True, None, None, None, True, None]
    alone = app.one(app.fields("new"))
    assert encode(results[0]["decision"]) == alone.get_body()
    assert set(app.ledger.tables.decisions) == {"known", "new"}


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({}, "must be a list of at least one transaction"),
        ({"transactions": []}, "must be a list of at least one transaction"),
        ({"transactions": {}}, "must be a list of at least one transaction"),
        ({"transactions": [1] * 11}, "must not be more than 10; there are 11"),
        ({"transactions": [1], "more": 1}, "is not a known field"),
    ],
)
def test_what_is_no_batch_is_refused(app: App, body: object, rule: str) -> None:
    response = app.many(body)
    assert (response.status_code, read(response)["rule"]) == (400, rule)


def test_a_batch_of_which_nothing_can_be_decided_now_is_503(app: App) -> None:
    app.scorers.scorer = None
    items = [app.fields("a"), app.fields("b")]
    assert app.many({"transactions": items}).status_code == 503
    assert app.many({"transactions": [*items, "bad"]}).status_code == 200


def test_only_known_origins_are_let_in(app: App) -> None:
    known = app.one(app.fields(), {**JSON, "origin": "https://console.example"})
    assert known.headers["Access-Control-Allow-Origin"] == "https://console.example"
    assert "Idempotent-Replayed" in known.headers["Access-Control-Expose-Headers"]
    other = app.one(app.fields(), {**JSON, "origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other.headers
    asked = func.HttpRequest("OPTIONS", "http://x/api/score", headers={"origin": "https://console.example"}, body=b"")
    answer = app.front.cors.preflight(asked)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Methods"]) == (204, "GET, POST")


def test_a_decision_is_logged_once_and_tells_nothing_of_the_payment(app: App, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        app.one(app.fields())
        app.one(app.fields(amount_minor=1))
        app.one(app.fields("t-3", amount_minor="987654"))
        app.many({"transactions": [app.fields("t-4")]})
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if line.startswith("decided ") and '"transaction_id":"t-1"' in line]) == 1
    assert not [line for line in lines if "4711" in line or "corner" in line or "987654" in line]


def test_a_unit_is_one_line_of_log_with_every_id(app: App, caplog: pytest.LogCaptureFixture) -> None:
    app.one(app.fields())
    with caplog.at_level(logging.INFO):
        items = [app.fields("t-5"), app.fields(), app.fields("t-6"), app.fields(amount_minor=1)]
        answer = read(app.many({"transactions": items}))
    decided, refused = {}, []
    for message in [record.getMessage() for record in caplog.records if record.name.endswith("http_score")]:
        text, _, fields = message.partition(" {")
        if text == "decided":
            decided = json.loads("{" + fields)
        else:
            refused.append(json.loads("{" + message.partition("{")[2]))
    assert [refusal["transaction_id"] for refusal in refused] == ["t-1"]
    assert (decided["count"], decided["seconds"] > 0) == (3, True)
    assert [line["transaction_id"] for line in decided["decisions"]] == ["t-5", "t-1", "t-6"]
    assert [line.get("repeated", False) for line in decided["decisions"]] == [False, True, False]
    told = [(result["decision"]["decision"], result["decision"]["score"]) for result in answer["results"][:3]]
    assert [(line["decision"], line["score"]) for line in decided["decisions"]] == told
    model = answer["results"][0]["decision"]["model"]
    assert decided["decisions"][0]["model"] == f"{model['name']}/{model['version']}/{model['digest'][:12]}"


def test_an_answer_is_a_function_of_the_record(app: App) -> None:
    response = app.one(app.fields())
    from shared.domain.decision_record import read_decision

    stored = app.ledger.tables.decisions["t-1"].record  # type: ignore[index]
    assert encode(decision_document(read_decision(stored))) == response.get_body()


def test_answers_are_written_before_anybody_asks_for_them(app: App) -> None:
    app.one(app.fields())
    data = app.ledger.tables.decisions[TransactionId("t-1")].record
    good = Decided(read_decision(data), data, repeated=False)
    unknown = Decided(replace(good.record, view="nobody-v1"), data, repeated=False)
    write_bodies([unknown, good])
    assert good.body == decision_body(good.record)
    assert unknown.body is None  # which its caller is told
