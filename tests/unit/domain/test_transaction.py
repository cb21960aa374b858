"""What is accepted as a transaction, and with which field and rule everything else is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import InvalidInput
from shared.domain.identifiers import MAX_IDENTIFIER_LENGTH, CustomerId, TerminalId, TransactionId
from shared.domain.instants import US_PER_DAY, US_PER_SECOND, format_instant, parse_instant
from shared.domain.transaction import (
    ALLOWED_LATENESS_US,
    FUTURE_TOLERANCE_US,
    MAX_AMOUNT_MINOR,
    Acceptance,
    Transaction,
    parse_transaction,
)

NOW_US = 1_522_540_800_000_000
ACCEPTANCE = Acceptance(currency="EUR", now_us=NOW_US)
GOOD: dict[str, object] = {
    "transaction_id": "t-1",
    "customer_id": "c-1",
    "terminal_id": "m-1",
    "amount_minor": 1250,
    "currency": "EUR",
    "event_time": "2018-03-31T23:59:59.5Z",
}
IDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=MAX_IDENTIFIER_LENGTH)
TRANSACTIONS = st.builds(
    Transaction,
    IDS.map(TransactionId),
    IDS.map(CustomerId),
    IDS.map(TerminalId),
    st.integers(1, MAX_AMOUNT_MINOR),
    st.just("EUR"),
    st.integers(NOW_US - ALLOWED_LATENESS_US, NOW_US + FUTURE_TOLERANCE_US),
)


@given(TRANSACTIONS)
def test_a_transaction_survives_the_wire(transaction: Transaction) -> None:
    fields = transaction.to_fields()
    assert parse_transaction(fields, ACCEPTANCE) == transaction
    assert parse_transaction({"type": "tollgate.transaction", **fields}, ACCEPTANCE) == transaction
    assert parse_transaction(dict(reversed(fields.items())), ACCEPTANCE) == transaction


@pytest.mark.parametrize("name", GOOD)
def test_every_field_is_needed(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_transaction({key: value for key, value in GOOD.items() if key != name}, ACCEPTANCE)
    assert (caught.value.field, caught.value.rule) == (name, "is missing")


NOT_VISIBLE = "must hold visible ASCII characters only, and no space"


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("colour", 1, "is not a known field"),
        ("x" * 100, 1, "is not a known field"),
        ("type", "tollgate.probe", "must be tollgate.transaction"),
        ("type", None, "must be tollgate.transaction"),
        ("transaction_id", 17, "must be text"),
        ("transaction_id", None, "must be text"),
        ("transaction_id", b"t-1", "must be text"),
        ("transaction_id", "", "must not be empty"),
        ("transaction_id", "t" * 65, "must not be longer than 64 characters; it has 65"),
        ("customer_id", "c\n1", "must not hold control characters"),
        ("customer_id", "c\x00", "must not hold control characters"),
        ("terminal_id", "\x7f", "must not hold control characters"),
        ("terminal_id", "m 1", NOT_VISIBLE),
        ("terminal_id", "\u202em", NOT_VISIBLE),
        ("terminal_id", "m\u00e9", NOT_VISIBLE),
        ("amount_minor", "1250", "must be a whole number of minor units, such as 1250 for 12.50"),
        ("amount_minor", True, "must be a whole number of minor units, such as 1250 for 12.50"),
        ("amount_minor", 12.5, "must be a whole number of minor units, such as 1250 for 12.50"),
        ("amount_minor", 12.0, "must be a whole number of minor units, such as 1250 for 12.50"),
        ("amount_minor", None, "must be a whole number of minor units, such as 1250 for 12.50"),
        ("amount_minor", float("nan"), "must be a finite number"),
        ("amount_minor", float("inf"), "must be a finite number"),
        ("amount_minor", float("-inf"), "must be a finite number"),
        ("amount_minor", 0, "must be greater than zero"),
        ("amount_minor", -1, "must be greater than zero"),
        ("amount_minor", MAX_AMOUNT_MINOR + 1, "must not be greater than 10000000000 minor units"),
        ("amount_minor", 10**400, "must not be greater than 10000000000 minor units"),
        ("currency", "USD", "must be EUR, the only currency of this deployment"),
        ("currency", "eur", "must be EUR, the only currency of this deployment"),
        ("currency", 978, "must be text"),
        ("event_time", 1522540800, "must be text, a time such as 2018-04-01T00:00:31.000001Z"),
        ("event_time", "2018-04-01T00:05:00.000001Z", "must not lie more than 300 s in the future"),
        ("event_time", "2018-03-24T23:59:59.999999Z", "must not lie more than 7 days in the past"),
    ],
)
def test_what_breaks_a_rule_names_field_and_rule(field: str, value: object, rule: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_transaction({**GOOD, field: value}, ACCEPTANCE)
    assert (caught.value.field, caught.value.rule) == (field[:64], rule)


@pytest.mark.parametrize("event_time", ["2018-04-01T00:05:00Z", "2018-03-25T00:00:00Z"])
def test_the_edges_of_the_acceptable_times_are_accepted(event_time: str) -> None:
    parse_transaction({**GOOD, "event_time": event_time}, ACCEPTANCE)


def test_imported_history_may_be_old() -> None:
    acceptance = Acceptance(currency="EUR", now_us=NOW_US, lateness_us=None)
    assert parse_transaction({**GOOD, "event_time": "1999-01-01T00:00:00Z"}, acceptance).event_time_us < NOW_US


@given(
    st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)),  # noqa: DTZ001  # made aware below
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
)
def test_times_are_read_exactly(naive: datetime, offset_minutes: int) -> None:
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)))
    expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert parse_instant("t", moment.isoformat()) == expected
    assert parse_instant("t", moment.isoformat().lower()) == expected


@given(st.integers(-60_000 * US_PER_DAY, 2_000_000 * US_PER_DAY))
def test_written_times_read_back(time_us: int) -> None:
    assert parse_instant("t", format_instant(time_us)) == time_us


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("1970-01-01T00:00:00.1Z", 100_000),
        ("1970-01-01T00:00:00.000001000000Z", 1),
        ("1970-01-01T00:00:00-00:00", 0),
        ("1970-01-01t01:00:00z", 3600 * US_PER_SECOND),
        ("1970-01-01T00:00:00+01:30", -5400 * US_PER_SECOND),
    ],
)
def test_forms_that_the_rfc_allows(text: str, microseconds: int) -> None:
    assert parse_instant("t", text) == microseconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2018-04-01",
        "2018-04-01T00:00:00",
        "2018-04-01 00:00:00Z",
        "2018-04-01T00:00Z",
        "2018-4-1T00:00:00Z",
        "2018-04-01T00:00:00.Z",
        "2018-04-01T00:00:00,5Z",
        "2018-04-01T00:00:00.0000001Z",
        "2018-04-01T00:00:60Z",
        "2018-04-01T24:00:00Z",
        "2018-04-01T00:60:00Z",
        "2018-02-29T00:00:00Z",
        "2018-13-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2018-04-01T00:00:00+24:00",
        "2018-04-01T00:00:00+00:60",
        "2018-04-01T00:00:00+0000",
        "2018-04-01T00:00:00Z\n",
        "\u0662018-04-01T00:00:00Z",
    ],
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_instant("event_time", text)
    assert caught.value.field == "event_time"
