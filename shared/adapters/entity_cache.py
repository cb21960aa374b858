"""States of entities that a ledger read or wrote last, so that it reads only what is newer."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from shared.domain.entity_state import EntityState
from shared.domain.feature_view import Entity
from shared.domain.surrogates import Surrogate


class CachedEntity(NamedTuple):
    """A state as it was committed once.

    Attributes:
        state: The state; its version says when it held.
        surrogate: Surrogate of its row; a customer who was forgotten and came back has another one.
    """

    state: EntityState
    surrogate: Surrogate


class EntityCache:
    """Keeps the states used last within a number of bytes; belongs to one thread, as its ledger does.

    It is never the authority: whoever uses a state has locked the entity's row first and compares versions.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[tuple[Entity, str], tuple[CachedEntity, int]] = OrderedDict()
        self._n_bytes = 0

    @property
    def n_bytes(self) -> int:
        """About how much memory the states take; at most the bound."""
        return self._n_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, entity: Entity, key: str) -> CachedEntity | None:
        """The state kept for an entity, which counts as used now."""
        found = self._entries.get((entity, key))
        if found is None:
            return None
        self._entries.move_to_end((entity, key))
        return found[0]

    def put(self, entity: Entity, key: str, cached: CachedEntity) -> None:
        """Keep a committed state, and let go of those used longest ago."""
        self.drop(entity, key)
        size = cached.state.n_bytes
        if size > self._max_bytes:
            return
        self._entries[entity, key] = (cached, size)
        self._n_bytes += size
        while self._n_bytes > self._max_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self._n_bytes -= freed

    def drop(self, entity: Entity, key: str) -> None:
        """Let go of one state, if it is kept."""
        gone = self._entries.pop((entity, key), None)
        if gone is not None:
            self._n_bytes -= gone[1]

    def clear(self) -> None:
        """Let go of everything."""
        self._entries.clear()
        self._n_bytes = 0
