"""Surrogates: stable, apart for every kind, key and salt, and silent about what they stand for."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.domain.feature_view import Entity
from shared.domain.surrogates import KeyRing, Surrogate, SurrogateKey, redacted, surrogate_of

KEY = SurrogateKey("k1", bytes(range(32)))
OTHER = SurrogateKey("k2", bytes(range(1, 33)))
SALTS = st.sampled_from([b"", bytes(16), bytes(range(16))])
PARTS = st.tuples(st.sampled_from([KEY, OTHER]), st.sampled_from(Entity), st.text(max_size=4), SALTS)


@given(PARTS, PARTS)
def test_equal_exactly_where_key_kind_identifier_and_salt_are(
    left: tuple[SurrogateKey, Entity, str, bytes], right: tuple[SurrogateKey, Entity, str, bytes]
) -> None:
    assert (surrogate_of(*left) == surrogate_of(*right)) == (left == right)


def test_a_salt_cannot_be_shifted_into_the_identifier() -> None:
    assert surrogate_of(KEY, Entity.CUSTOMER, "s" * 16 + "c") != surrogate_of(KEY, Entity.CUSTOMER, "c", b"s" * 16)


def test_the_surrogate_is_the_named_construction() -> None:
    """Golden, and written out once more."""
    salt = bytes(range(16))
    message = b"tollgate surrogate 1" + b"\x08\x10" + b"customer" + salt + b"c-1"
    expected = "k1." + hmac.new(KEY.secret, message, hashlib.sha256).hexdigest()[:32]
    assert surrogate_of(KEY, Entity.CUSTOMER, "c-1", salt) == expected
    assert surrogate_of(KEY, Entity.CUSTOMER, "c-1", salt) == GOLDEN


def test_a_key_is_never_shown() -> None:
    assert "secret" not in repr(KeyRing(KEY, (OTHER,)))


@pytest.mark.parametrize("key_id", ["", "K1", "k.1", "k" * 17, "k\n", "k\u0661"])
def test_names_of_keys_are_plain(key_id: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SurrogateKey(key_id, bytes(32))
    assert caught.value.field == "key_id"


def test_short_keys_and_other_salts_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 32 bytes"):
        SurrogateKey("k1", bytes(31))
    with pytest.raises(BrokenInvariant):
        surrogate_of(KEY, Entity.CUSTOMER, "c-1", b"short")


def test_after_a_rotation_old_surrogates_find_their_key() -> None:
    ring = KeyRing(OTHER, (KEY,))
    old = surrogate_of(KEY, Entity.CUSTOMER, "c-1")
    assert ring.key_of(old) == KEY
    assert ring.key_of(surrogate_of(ring.current, Entity.CUSTOMER, "c-1")) == OTHER
    with pytest.raises(BrokenInvariant):
        ring.key_of(Surrogate("k3.00"))
    with pytest.raises(InvalidInput):
        KeyRing(KEY, (KEY,))


@given(st.text(max_size=64))
def test_what_is_shown_is_at_most_four_characters_and_a_third(identifier: str) -> None:
    shown = redacted(identifier)
    assert shown.startswith("***")
    rest = shown.removeprefix("***")
    assert len(rest) <= 4
    assert 3 * len(rest) <= len(identifier)
    assert identifier.endswith(rest)


GOLDEN = "k1.995a8c0f0a6b7b34003d770b16cb7663"
