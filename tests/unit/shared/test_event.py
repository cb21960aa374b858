from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import InvalidInput
from shared.domain.event import MAX_BODY_BYTES, parse_object

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), _JSON, max_size=5))
def test_any_object_is_read_as_it_was_written(value: dict[str, object]) -> None:
    assert parse_object(json.dumps(value).encode()) == value


@given(st.binary(max_size=200))
def test_any_other_bytes_are_read_as_an_object_or_refused_as_invalid(body: bytes) -> None:
    with suppress(InvalidInput):
        assert isinstance(parse_object(body), dict)


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        (b"", "", "must be JSON (character 0)"),
        (b"\xff", "", "must be UTF-8; byte 0 is not"),
        (b"[1]", "", "must be a JSON object"),
        (b'{"a": NaN}', "", "must not hold NaN"),
        (b'{"a": -Infinity}', "", "must not hold -Infinity"),
        (b'{"a": 1, "a": 2}', "a", "must not be given twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", "", "must be JSON"),
        (b"[" * 100_000, "", "must be JSON"),
        (
            b" " * (MAX_BODY_BYTES + 1),
            "",
            f"must not be longer than {MAX_BODY_BYTES} bytes; it has {MAX_BODY_BYTES + 1}",
        ),
    ],
)
def test_what_cannot_be_used_names_field_and_rule(body: bytes, field: str, rule: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_object(body)
    assert (caught.value.field, caught.value.rule) == (field, rule)
