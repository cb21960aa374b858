"""Surrogates: keyed hashes that stand for personal identifiers in the log, so that a person can be forgotten.

A surrogate is HMAC-SHA-256 (RFC 2104, FIPS 198-1) of kind, salt and identifier under a secret key, cut to 128 bits. A
plain hash would not do: identifiers are few enough to try them all.

*Kinds.* The kind of entity is part of what is hashed, so a customer and a terminal of one name share nothing.

*Rotation.* A surrogate names its key. Entities keep the surrogate they were given; only entities that are new after a
rotation get one of the new key, so nothing in the log has to be rewritten. Old keys stay in the key ring to recompute.

*Forgetting.* Without a salt, a surrogate can be recomputed by whoever holds the key and the identifier. With a random
salt, kept in the entity's row, it cannot once that row is deleted, not even with the key; a person who comes back gets
another salt and is not linked to the past. So customers have a salt and forgetting one means deleting the row;
terminals are no persons and need none.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Final, NewType

from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.domain.feature_view import Entity

Surrogate = NewType("Surrogate", str)
"""Key id, a dot, 32 hexadecimal digits: `k1.0f3c...`."""

MIN_KEY_BYTES: Final = 32
"""Shortest key: as long as the hash (RFC 2104, section 3)."""

SALT_BYTES: Final = 16
"""Length of a salt: with 128 random bits no two entities share one."""

SURROGATE_BYTES: Final = 16
"""128 bits: among 2**40 entities two share a surrogate with a probability below 2**-48 (birthday bound)."""

_KEY_ID: Final = re.compile(r"[a-z0-9]{1,16}", re.ASCII)
_DOMAIN: Final = b"tollgate surrogate 1"
_SHOWN_CHARACTERS: Final = 4
_SHOWN_FROM_LENGTH: Final = 12


@dataclass(frozen=True, slots=True)
class SurrogateKey:
    """A secret key and the name that surrogates carry.

    Attributes:
        key_id: 1 to 16 lower-case letters and digits.
        secret: At least 32 random bytes; never shown, not even by `repr`.
    """

    key_id: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what would not protect.

        Raises:
            InvalidInput: The name has other characters, or the secret is too short.
        """
        if not _KEY_ID.fullmatch(self.key_id):
            raise InvalidInput("key_id", "must be 1 to 16 lower-case letters and digits")
        if len(self.secret) < MIN_KEY_BYTES:
            raise InvalidInput("secret", f"must have at least {MIN_KEY_BYTES} bytes; it has {len(self.secret)}")


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The key for new surrogates, and older ones that recompute.

    Attributes:
        current: For entities that have no surrogate yet.
        retired: Older keys, in any order.
    """

    current: SurrogateKey
    retired: tuple[SurrogateKey, ...] = ()

    def __post_init__(self) -> None:
        """Refuse two keys of one name.

        Raises:
            InvalidInput: There are.
        """
        names = [key.key_id for key in (self.current, *self.retired)]
        if len(set(names)) != len(names):
            raise InvalidInput("key_id", "must not be given twice")

    def key_of(self, surrogate: Surrogate) -> SurrogateKey:
        """The key a surrogate was made with.

        Raises:
            BrokenInvariant: It is not in the ring.
        """
        key_id = surrogate.partition(".")[0]
        for key in (self.current, *self.retired):
            if key.key_id == key_id:
                return key
        raise BrokenInvariant(f"no surrogate key is named {key_id}")


def parse_key_ring(text: str) -> KeyRing:
    """Read keys from a setting: `<id>:<base64>` with commas, the current one first.

    >>> parse_key_ring("k2:" + "Ag" * 21 + "A=, k1:" + "AQ" * 21 + "A=").current.key_id
    'k2'

    Raises:
        InvalidInput: Not that form; what was given is never quoted.
    """
    keys = []
    for entry in text.split(","):
        key_id, colon, encoded = entry.strip().partition(":")
        try:
            secret = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            secret, colon = b"", ""
        if not colon:
            raise InvalidInput("SURROGATE_KEYS", "must be <id>:<base64> with commas, the current key first") from None
        keys.append(SurrogateKey(key_id, secret))
    return KeyRing(keys[0], tuple(keys[1:]))


def surrogate_of(key: SurrogateKey, entity: Entity, identifier: str, salt: bytes = b"") -> Surrogate:
    """The surrogate of an entity.

    >>> surrogate_of(SurrogateKey("k1", bytes(32)), Entity.TERMINAL, "m-1")
    'k1.131cac10a3e1cab4049eaed633ca0a89'

    Args:
        key: Which key.
        entity: Which kind of entity.
        identifier: As the sender names it.
        salt: The entity's own salt, `SALT_BYTES` long, or none.

    Raises:
        BrokenInvariant: A salt of another length.
    """
    if salt and len(salt) != SALT_BYTES:
        raise BrokenInvariant(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    kind = entity.value.encode("ascii")
    # Lengths go in front, so that kind, salt and identifier cannot be shifted into one another.
    message = _DOMAIN + bytes((len(kind), len(salt))) + kind + salt + identifier.encode("utf-8")
    value = hmac.digest(key.secret, message, hashlib.sha256)[:SURROGATE_BYTES]
    return Surrogate(f"{key.key_id}.{value.hex()}")


def redacted(identifier: str) -> str:
    """How an identifier is shown to people and in logs: its last four characters, and only of long ones.

    The rest becomes three stars whatever its length; of an identifier shorter than twelve characters nothing is shown,
    because four of few are most of it.

    >>> redacted("customer-000417"), redacted("417")
    ('***0417', '***')
    """
    return "***" + (identifier[-_SHOWN_CHARACTERS:] if len(identifier) >= _SHOWN_FROM_LENGTH else "")
