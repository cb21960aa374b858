"""The entities of one unit of work while it folds: their states now, and what has to be written in the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.domain.entity_state import EntityState, Folded
from shared.domain.entity_state_tiles import Tile
from shared.domain.feature_view import Entity
from shared.domain.ledger import EntityChange, KnownEntity
from shared.domain.surrogates import KeyRing, Surrogate, surrogate_of


@dataclass(slots=True)
class EntityWork:
    """One entity while a unit of work folds into it.

    Attributes:
        entity: Which kind.
        key: Its identifier.
        state: Its state so far.
        surrogate: How the log names it.
    """

    entity: Entity
    key: str
    state: EntityState
    surrogate: Surrogate
    _touched: dict[int, Tile] = field(default_factory=dict)
    _gone: set[int] = field(default_factory=set)

    def take(self, folded: Folded) -> None:
        """Go on from what a fold gave."""
        self.state = folded.state
        for start_us in folded.removed:
            self._touched.pop(start_us, None)
            self._gone.add(start_us)
        for tile in folded.changed:
            self._touched[tile.start_us] = tile
            self._gone.discard(tile.start_us)

    def change(self) -> EntityChange:
        """What has to be written."""
        changed = tuple([self._touched[start_us] for start_us in sorted(self._touched)])
        return EntityChange(self.entity, self.key, self.state, changed, tuple(sorted(self._gone)), self.surrogate)


class EntityWorks[Key: str]:
    """The entities of one kind in a unit of work."""

    __slots__ = ("_entity", "_keys", "_known", "_works")

    def __init__(self, entity: Entity, known: Mapping[Key, KnownEntity], keys: KeyRing) -> None:
        self._entity = entity
        self._known = known
        self._keys = keys
        self._works: dict[Key, EntityWork] = {}

    def of(self, key: Key) -> EntityWork:
        """The work on one entity; a new entity is named under the current key."""
        work = self._works.get(key)
        if work is None:
            known = self._known[key]
            surrogate = known.surrogate or surrogate_of(self._keys.current, self._entity, key, known.salt)
            work = self._works[key] = EntityWork(self._entity, key, known.state, surrogate)
        return work

    def changes(self) -> list[EntityChange]:
        """What has to be written, ordered by key."""
        return [self._works[key].change() for key in sorted(self._works)]
