"""Labels over HTTP on fakes: each row answered, none lost, the ledger used by one thread at a time."""

from __future__ import annotations

import csv
import io
import json
import logging
import threading
from collections.abc import Sequence
from typing import Any

import azure.functions as func
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.canonical import label_digest
from shared.domain.errors import BrokenInvariant, Transient
from shared.domain.labels import Label
from shared.entrypoints.http_labels import WAITING, LabelLimits, LabelRoutes
from shared.entrypoints.wire_labels import COLUMNS
from shared.services.labelling import Labelling, LabelVerdict
from tests.fakes.ledger import FakeLedger
from tests.fakes.probes import FakeClock
from tests.unit.domain.worlds import label, transaction
from tests.unit.shared.test_scoring import KEYS, scoring

OWN = [transaction(number, number) for number in range(4)]


class OddLabelling(Labelling):
    """Meets damaged state for some transactions."""

    odd: frozenset[str] = frozenset()

    def record(self, labels: Sequence[Label]) -> list[LabelVerdict]:
        if any(item.transaction_id in self.odd for item in labels):
            raise BrokenInvariant("state is damaged")
        return super().record(labels)


class Desk:
    """The route on a ledger in memory that knows some transactions."""

    def __init__(self, limits: LabelLimits | None = None) -> None:
        self.ledger = FakeLedger()
        scoring(self.ledger).decide(OWN)
        self.labelling = OddLabelling(self.ledger, KEYS, FakeClock())
        self.turn = threading.Lock()
        self.routes = LabelRoutes(self.labelling, self.turn, FakeClock(), limits)

    def post(self, body: object, kind: str = "application/json") -> func.HttpResponse:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = func.HttpRequest("POST", "http://localhost/api/labels", headers={"Content-Type": kind}, body=raw)
        return self.routes.post(request)

    def recorded(self) -> set[str]:
        return {key[0] for key in self.ledger.tables.labels}


def fields(number: int, **changed: object) -> dict[str, object]:
    return {**label(transaction(number, number), fraud=True).to_fields(), **changed}


def as_csv(rows: Sequence[dict[str, object]], columns: Sequence[str] = COLUMNS) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def told(response: func.HttpResponse) -> Any:
    return json.loads(response.get_body())


def test_one_label_is_answered_alone() -> None:
    desk = Desk()
    for outcome in ("recorded", "repeated"):
        response = desk.post(fields(1))
        assert (response.status_code, told(response)) == (200, {"transaction_id": "t0001", "outcome": outcome})
    assert told(desk.post(fields(99)))["outcome"] == "waiting"


def test_one_label_that_breaks_a_rule_is_a_problem() -> None:
    response = Desk().post(fields(1, confidence=101))
    assert (response.status_code, response.mimetype) == (400, "application/problem+json")
    assert (told(response)["field"], told(response)["rule"]) == (
        "confidence",
        "must be a whole number of percent, 0 to 100",
    )


MIXED = [fields(1), fields(99), fields(1), fields(2, verdict="perhaps"), fields(3, known_at="soon"), fields(3)]
WANTED = ["recorded", "waiting", "repeated", "refused", "refused", "recorded"]


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=UTF-8", "text/csv; header=present"])
def test_each_row_of_a_list_is_answered(kind: str) -> None:
    desk = Desk()
    response = desk.post(as_csv(MIXED) if "csv" in kind else MIXED, kind)
    document = told(response)
    assert response.status_code == 207
    assert [row["outcome"] for row in document["results"]] == WANTED
    assert [row["row"] for row in document["results"]] == [1, 2, 3, 4, 5, 6]
    assert {name: document[name] for name in ("recorded", "waiting", "repeated", "refused")} == {
        "recorded": 2,
        "waiting": 1,
        "repeated": 1,
        "refused": 2,
    }
    assert [row["transaction_id"] for row in document["results"] if "transaction_id" in row] == [
        "t0001",
        "t0099",
        "t0001",
        "t0003",
    ]
    problem = document["results"][3]["problem"]
    assert (problem["status"], problem["field"], problem["rule"]) == (400, "verdict", "must be one of fraud, genuine")
    assert desk.recorded() == {"t0001", "t0099", "t0003"}
    again = desk.post([MIXED[0], MIXED[1], MIXED[5]])
    assert again.status_code == 200
    assert told(again)["repeated"] == 3


def test_csv_may_have_its_columns_in_any_order_a_mark_and_empty_lines() -> None:
    desk = Desk()
    body = b"\xef\xbb\xbf" + as_csv([fields(1), fields(2)], COLUMNS[::-1]).replace(b"\r\n", b"\n\n")
    assert [row["outcome"] for row in told(desk.post(body, "Text/CSV"))["results"]] == ["recorded", "recorded"]
    short = as_csv([fields(1)]) + b"t0002,fraud\r\n"
    (_, row) = told(desk.post(short, "text/csv"))["results"]
    assert row["problem"]["rule"] == "must have 7 cells, not 2"


ONE_ROW = as_csv([fields(1)])
BROKEN = {
    "not_json": (b"[{", "application/json", "", "must be JSON (character 2)"),
    "two_arrays": (b"[], []", "application/json", "", "must be JSON (character 4)"),
    "more_than_an_array": (b'[], "x": []', "application/json", "", "must be one JSON array"),
    "a_key_twice": (b'[{"author": 1, "author": 2}]', "application/json", "author", "must not be given twice"),
    "nan": (b"[NaN]", "application/json", "", "must not hold NaN"),
    "neither": (b"7", "application/json", "", "must be a JSON object"),
    "nothing": (b"[]", "application/json", "", "must hold at least one label"),
    "nothing_in_csv": (as_csv([]), "text/csv", "", "must hold at least one label"),
    "empty_csv": (b"", "text/csv", "transaction_id", "is missing; the first row must name all columns"),
    "unknown_column": (ONE_ROW.replace(b"author", b"auteur", 1), "text/csv", "auteur", "is not a known column"),
    "column_twice": (ONE_ROW.replace(b"author", b"source", 1), "text/csv", "source", "must not be given twice"),
    "missing_column": (b"transaction_id\r\nt1\r\n", "text/csv", "verdict", "is missing"),
    "open_quote": (ONE_ROW + b'"t1,', "text/csv", "", "must be CSV; line 3 is not"),
    "latin_1": (ONE_ROW + b"\xe9", "text/csv", "", f"must be UTF-8; byte {len(ONE_ROW)} is not"),
    "too_many": ([fields(n) for n in range(5)], "application/json", "", "must not hold more than 4 labels"),
    "too_many_in_csv": (as_csv([fields(n) for n in range(5)]), "text/csv", "", "must not hold more than 4 labels"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_body_that_cannot_be_read_is_one_problem_and_records_nothing(name: str) -> None:
    body, kind, field, rule = BROKEN[name]
    desk = Desk(LabelLimits(rows=4))
    response = desk.post(body, kind)
    assert (response.status_code, response.mimetype) == (400, "application/problem+json")
    assert told(response)["field"] == field
    assert told(response)["rule"].startswith(rule)
    assert not desk.recorded()


@pytest.mark.parametrize("kind", ["", "text/plain", "application/json; charset=latin-1", "text/csv;charset=utf-16"])
def test_other_media_types_are_refused(kind: str) -> None:
    response = Desk().post(fields(1), kind)
    assert (response.status_code, told(response)["field"]) == (415, "content-type")


def test_a_body_beyond_the_limit_is_refused() -> None:
    desk = Desk(LabelLimits(body_bytes=20))
    assert desk.post(fields(1)).status_code == 413
    assert told(desk.post(b" " * 21, "text/csv"))["rule"] == "must not be longer than 20 bytes; it has 21"
    assert desk.post(b"[]" + b" " * 18).status_code == 400


def test_an_item_that_is_no_object_is_refused_alone() -> None:
    document = told(Desk().post([7, fields(1)]))
    assert [row["outcome"] for row in document["results"]] == ["refused", "recorded"]


def test_damaged_state_refuses_its_own_rows_and_says_little() -> None:
    desk = Desk()
    desk.labelling.odd = frozenset({"t0002"})
    response = desk.post([fields(number) for number in range(4)])
    results = told(response)["results"]
    assert [row["outcome"] for row in results] == ["recorded", "recorded", "refused", "recorded"]
    assert (results[2]["problem"]["status"], results[2]["problem"]["detail"]) == (500, "the fault was logged")
    assert desk.post(fields(2)).status_code == 500


def test_a_passing_fault_says_when_to_come_again() -> None:
    desk = Desk()
    desk.ledger.fault_at_write = Transient("down")
    response = desk.post([fields(1)])
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert told(desk.post([fields(1)]))["recorded"] == 1
    assert not desk.turn.locked()


def test_a_turn_that_does_not_come_is_told_and_nothing_is_kept() -> None:
    desk = Desk(LabelLimits(turn_s=0.01))
    with desk.turn:
        for _ in range(WAITING + 1):
            assert desk.post(fields(1)).status_code == 503
    assert not desk.recorded()
    assert desk.post(fields(1)).status_code == 200


def test_only_some_requests_wait_at_once() -> None:
    desk = Desk(LabelLimits(turn_s=30))
    statuses: list[int] = []
    with desk.turn:
        waiting = [
            threading.Thread(target=lambda n=n: statuses.append(desk.post(fields(n)).status_code))
            for n in range(WAITING + 1)
        ]
        for thread in waiting:
            thread.start()
        waiting_out = threading.Event()
        while len(statuses) < 1 and not waiting_out.wait(0.001):
            pass
        assert statuses == [503]
    for thread in waiting:
        thread.join()
    assert sorted(statuses) == [200] * WAITING + [503]


def test_the_log_tells_counts_and_nothing_of_a_row(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    Desk().post([fields(1, author="ann-of-the-desk"), fields(2, card="4111111111111111")])
    assert "labels received" in caplog.text
    assert "ann-of-the-desk" not in caplog.text
    assert "4111111111111111" not in caplog.text


LABELS = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 9)), min_size=1, max_size=12)


@given(LABELS)
def test_json_and_csv_say_the_same(rows: list[tuple[int, bool, int]]) -> None:
    given_labels = [label(transaction(n, n), fraud=fraud, known_after_us=after) for n, fraud, after in rows]
    bodies = [item.to_fields() for item in given_labels]
    one, other = Desk(), Desk()
    assert told(one.post(bodies)) == told(other.post(as_csv(bodies), "text/csv"))
    assert set(one.ledger.tables.labels) == set(other.ledger.tables.labels)
    assert set(one.ledger.tables.labels) == {(item.transaction_id, label_digest(item)) for item in given_labels}
