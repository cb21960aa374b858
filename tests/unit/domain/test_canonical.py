"""Canonical bytes: they read back, no two things share them, and they are what they were."""

from __future__ import annotations

import math
import struct
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.canonical import (
    Digest,
    Reader,
    Writer,
    digest_of,
    read_transaction,
    transaction_bytes,
    transaction_digest,
)
from shared.domain.cost_policy import CostPolicy, Costs
from shared.domain.decision import Decision, Outcome, Policy, RuleHit
from shared.domain.decision_record import DecisionRecord, Lateness, decision_bytes, decision_digest, read_decision
from shared.domain.errors import BrokenInvariant
from shared.domain.feature_view import Entity
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId
from shared.domain.reasons import Reason
from shared.domain.score import Score
from shared.domain.surrogates import SurrogateKey, surrogate_of
from shared.domain.transaction import Acceptance, Transaction, parse_transaction

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=12)
TRANSACTIONS = st.builds(
    Transaction, TEXT.map(TransactionId), TEXT.map(CustomerId), TEXT.map(TerminalId), INT64, TEXT, INT64
)
KEY = SurrogateKey("k1", bytes(range(32)))
CUSTOMER = surrogate_of(KEY, Entity.CUSTOMER, "c-1", bytes(16))
TERMINAL = surrogate_of(KEY, Entity.TERMINAL, "m-1")
THRESHOLD = st.sampled_from([0.25, 0.5, 0.75])
DECISIONS = st.builds(
    Decision,
    st.sampled_from(Outcome),
    st.builds(Score, st.floats(0, 1), TEXT),
    st.builds(lambda low, high: Policy(min(low, high), max(low, high)), THRESHOLD, THRESHOLD)
    | st.builds(
        CostPolicy,
        st.builds(Costs, *(st.sampled_from([1, 2]) for _ in range(3)), declines=st.booleans()),
        st.sampled_from([0, 1]),
    ),
    TEXT,
    st.lists(st.builds(RuleHit, TEXT, st.sampled_from(Outcome)), max_size=2).map(tuple),
)
RECORDS = st.builds(
    DecisionRecord,
    transaction_id=TEXT.map(TransactionId),
    customer=st.just(CUSTOMER),
    terminal=st.just(TERMINAL),
    event_time_us=INT64,
    amount_minor=INT64,
    currency=TEXT,
    customer_version=INT64,
    terminal_version=INT64,
    view=TEXT,
    vector=st.binary(max_size=12),
    lateness=st.integers(0, 3).map(Lateness),
    model_name=TEXT,
    model_version=INT64,
    raw_score=st.floats(allow_nan=False),
    decision=DECISIONS,
    base=st.floats(allow_nan=False),
    reasons=st.lists(st.builds(Reason, TEXT, st.floats(allow_nan=False)), max_size=2).map(tuple),
    others=st.floats(allow_nan=False),
    fingerprint=st.binary(min_size=32, max_size=32).map(Digest),
)
RECORD = DecisionRecord(
    transaction_id=TransactionId("t-1"),
    customer=CUSTOMER,
    terminal=TERMINAL,
    event_time_us=1_522_540_800_000_001,
    amount_minor=1250,
    currency="EUR",
    customer_version=3,
    terminal_version=41,
    view="card-v1",
    vector=struct.pack("<3f", 1250.0, 0.0, math.nan),
    lateness=Lateness.NONE,
    model_name="card-fraud",
    model_version=7,
    raw_score=0.625,
    decision=Decision(Outcome.REVIEW, Score(0.5, "ab" * 32), Policy(0.5, 0.9), "rules-0", ()),
    base=-5.0,
    reasons=(Reason("A02", 1.5), Reason("M08", 0.25)),
    others=-0.5,
    fingerprint=digest_of(b"runtime"),
)
TRANSACTION = Transaction(
    TransactionId("t-1"), CustomerId("c-1"), TerminalId("m-1"), 1250, "EUR", 1_522_540_800_000_001
)


@given(TRANSACTIONS)
def test_transactions_read_back(transaction: Transaction) -> None:
    assert read_transaction(transaction_bytes(transaction)) == transaction


@given(TRANSACTIONS, TRANSACTIONS)
def test_transactions_share_bytes_only_if_they_are_the_same(left: Transaction, right: Transaction) -> None:
    assert (transaction_bytes(left) == transaction_bytes(right)) == (left == right)


@given(st.text(max_size=3), st.text(max_size=3), st.text(max_size=3), st.text(max_size=3))
def test_text_cannot_be_shifted_from_one_field_to_the_next(one: str, two: str, three: str, four: str) -> None:
    left = replace(TRANSACTION, customer_id=CustomerId(one), terminal_id=TerminalId(two))
    right = replace(TRANSACTION, customer_id=CustomerId(three), terminal_id=TerminalId(four))
    assert (transaction_bytes(left) == transaction_bytes(right)) == ((one, two) == (three, four))


@given(st.permutations(list(TRANSACTION.to_fields())))
def test_key_order_and_form_of_the_body_are_irrelevant(names: list[str]) -> None:
    body = TRANSACTION.to_fields()
    body["event_time"] = "2018-04-01T02:00:00.00000100+02:00"
    acceptance = Acceptance("EUR", TRANSACTION.event_time_us)
    parsed = parse_transaction({name: body[name] for name in names}, acceptance)
    assert transaction_digest(parsed) == transaction_digest(TRANSACTION)


@given(RECORDS)
def test_decisions_read_back(record: DecisionRecord) -> None:
    assert read_decision(decision_bytes(record)) == record


@given(RECORDS, RECORDS)
@settings(max_examples=50)
def test_decisions_share_bytes_only_if_they_are_the_same(left: DecisionRecord, right: DecisionRecord) -> None:
    assert (decision_bytes(left) == decision_bytes(right)) == (repr(left) == repr(right))  # repr tells -0.0 from 0.0


@pytest.mark.parametrize("name", [field.name for field in fields(DecisionRecord)])
@given(record=RECORDS)
@settings(max_examples=15)
def test_every_field_of_a_decision_is_bound(name: str, record: DecisionRecord) -> None:
    changed = replace(RECORD, **{name: getattr(record, name)})
    assert (decision_bytes(changed) == decision_bytes(RECORD)) == (repr(changed) == repr(RECORD))


def test_a_decision_keeps_the_bits_of_nan_and_negative_zero() -> None:
    record = replace(RECORD, raw_score=-0.0, reasons=(Reason("A01", math.nan),))
    data = decision_bytes(record)
    assert decision_bytes(read_decision(data)) == data


def test_no_raw_identifier_of_a_person_is_in_the_bytes() -> None:
    data = decision_bytes(replace(RECORD, transaction_id=TransactionId("t")))
    assert b"c-1" not in data
    assert b"m-1" not in data


@given(st.binary(max_size=40))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BrokenInvariant):
        read_transaction(data)
    with pytest.raises(BrokenInvariant):
        read_decision(data)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_changed_bytes_are_refused_or_read_as_something_else(place: int, flip: int) -> None:
    data = bytearray(decision_bytes(RECORD))
    data[place % len(data)] ^= flip
    try:
        record = read_decision(bytes(data))
    except BrokenInvariant:
        return
    assert decision_bytes(record) == bytes(data)
    assert decision_digest(record) != decision_digest(RECORD)


@pytest.mark.parametrize("length", range(0, 300, 7))
def test_cut_and_lengthened_bytes_are_refused(length: int) -> None:
    data = decision_bytes(RECORD)
    with pytest.raises(BrokenInvariant):
        read_decision(data[:length])
    with pytest.raises(BrokenInvariant):
        read_decision(data + b"x" * (length + 1))


def test_what_this_release_cannot_read_is_refused() -> None:
    data = decision_bytes(RECORD)
    assert data[:2] == b"D\x01"
    for other in (
        b"D\x02" + data[2:],
        b"T" + data[1:],
        data.replace(b"fixed-v1", b"fixed-v9"),
        data.replace(b"review", b"reject"),
        data.replace(struct.pack(">d", 0.9), struct.pack(">d", 9.0)),
        data.replace(struct.pack(">d", 0.9), struct.pack(">d", 0.1)),
    ):
        with pytest.raises(BrokenInvariant):
            read_decision(other)


COST_RECORD = replace(RECORD, decision=replace(RECORD.decision, policy=CostPolicy(Costs(500, 200, 2_000), 750)))


@pytest.mark.parametrize(
    ("record", "digest"),
    [
        (RECORD, "241bc2e4c7d5e6b0d49658ac5bf0c61b6668dc36f21aa6a52e52f27954801af9"),
        (COST_RECORD, "5e448ac8b9cc24f903d75d6b347024a9c357c634420749d511b11ff03c4d9ad3"),
    ],
)
def test_the_bytes_of_each_policy_never_change(record: DecisionRecord, digest: str) -> None:
    """Golden: the first is what releases wrote that knew one policy only."""
    assert decision_digest(record).hex() == digest


def test_parameters_of_a_policy_that_are_none_are_refused() -> None:
    data = decision_bytes(COST_RECORD)
    assert read_decision(data) == COST_RECORD
    parameters = struct.pack(">qqqqq", 500, 200, 2_000, 1, 750)
    assert data.count(parameters) == 1
    for other in (
        (0, 200, 2_000, 1, 750),
        (500, 10_001, 2_000, 1, 750),
        (500, 200, -1, 1, 750),
        (500, 200, 2_000, 2, 750),
        (500, 200, 2_000, 1, -750),
    ):
        with pytest.raises(BrokenInvariant):
            read_decision(data.replace(parameters, struct.pack(">qqqqq", *other)))


def test_a_negative_count_is_not_canonical() -> None:
    record = replace(RECORD, reasons=())
    data = decision_bytes(record)
    tail = 8 + 8 + 4 + 32  # the count of reasons, the other contributions, the fingerprint
    assert data[-tail : -tail + 8] == bytes(8)
    with pytest.raises(BrokenInvariant, match="canonical form"):
        read_decision(data[:-tail] + struct.pack(">q", -1) + data[-tail + 8 :])


def test_writers_and_readers_agree_on_each_kind_of_field() -> None:
    data = Writer(1, 2).integer(-5).real(0.1).text("\u00fc").data(b"\x00").finish()
    reader = Reader(data, 1, 2)
    assert (reader.integer(), reader.real(), reader.text(), reader.data()) == (-5, 0.1, "\u00fc", b"\x00")
    reader.finish()
    with pytest.raises(BrokenInvariant, match="64 bits"):
        Writer(1, 2).integer(2**63)
    with pytest.raises(BrokenInvariant, match="UTF-8"):
        Reader(Writer(1, 2).data(b"\xff").finish(), 1, 2).text()


def test_the_bytes_of_a_transaction_never_change() -> None:
    """Golden, format 1."""
    assert transaction_bytes(TRANSACTION).hex() == (
        "540100000003742d3100000003632d31000000036d2d3100000000000004e200000003455552000568be278a4001"
    )
    assert transaction_digest(TRANSACTION).hex() == GOLDEN_TRANSACTION


def test_the_digest_of_a_decision_never_changes() -> None:
    """Golden, format 1."""
    assert decision_digest(RECORD).hex() == GOLDEN_DECISION


GOLDEN_TRANSACTION = "44d553881a3f297964eb012c4d8f2790d024ac4f273163480cf4a1a3bf8ef84d"
GOLDEN_DECISION = "241bc2e4c7d5e6b0d49658ac5bf0c61b6668dc36f21aa6a52e52f27954801af9"
