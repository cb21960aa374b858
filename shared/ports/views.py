"""What is kept of feature views, and the filling of entity state for those that look further back, as ports."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from shared.domain.entity_state_layout import Span
from shared.domain.feature_view import Entity
from shared.domain.kept_view import KeptView


class ViewBook(Protocol):
    """What is kept of feature views."""

    def kept(self) -> Sequence[KeptView]:
        """All of them, by name.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...

    def keep(self, view: KeptView) -> KeptView:
        """Keep a view, unless one of its name is kept; returns what is kept from now on.

        From then on new entities get state that reaches back far enough for it.

        Raises:
            Transient: As for `kept`.
        """
        ...

    def note(self, view: KeptView) -> None:
        """Keep the status, place, counts and times of a view that is kept; the rest of it never changes.

        Raises:
            Transient: As for `kept`; nothing was kept.
        """
        ...


class Filled(NamedTuple):
    """What one step of a filling did.

    Attributes:
        key: The last entity that it looked at.
        entities: How many it looked at.
        transactions: How many it put into their states.
    """

    key: str
    entities: int
    transactions: int


class StateFilling(Protocol):
    """Lets states reach further back, a few at a time, while others decide."""

    def alone(self) -> AbstractContextManager[None]:
        """While this is held nobody else fills.

        Raises:
            Conflict: Somebody does.
            Transient: The store cannot be reached now.
        """
        ...

    def outlast_writers(self) -> None:
        """Return once no writer can make an entity any more that does not know what was declared before this call.

        Raises:
            Transient: Somebody has been writing for too long; calling again is safe.
        """
        ...

    def count(self, entity: Entity) -> int:
        """How many entities of a kind there are."""
        ...

    def fill(self, entity: Entity, span: Span, after: str, limit: int) -> Filled | None:
        """Bring the next entities to a layout, in the order of their keys; None if there are no more.

        Everything is committed when it returns. It may be broken off anywhere and called again with the same key:
        what is done is left as it is.

        Args:
            entity: What kind.
            span: How far back their state is to be kept.
            after: The key that is done; empty for none.
            limit: How many to look at.

        Raises:
            Transient: The store cannot do it now.
            BrokenInvariant: Stored state cannot be read, or a writer of an earlier release undoes what is done.
        """
        ...
