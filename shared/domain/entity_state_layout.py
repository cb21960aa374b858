"""How far back entity state is kept, and which feature views that is enough for.

Tiles hold raw events, so what state holds of an entity depends on its events and on one number, the horizon: how far
behind the entity's greatest event time nothing is dropped. A layout says that number for each kind of entity; a view
says how much of it it needs. A view that needs no more than is kept reads the states that are there. One that needs
more raises the layout first, and then state is filled from raw events (`entity_state_filling`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from shared.domain.feature_view import CARD_V1, Entity, FeatureView
from shared.domain.instants import US_PER_DAY


class Span(NamedTuple):
    """How far back state of one kind of entity is kept.

    Attributes:
        view: Name of the feature view that asked for it.
        horizon_us: How far behind an entity's greatest event time, microseconds.
    """

    view: str
    horizon_us: int


class StateLayout(NamedTuple):
    """How far back entity state is kept.

    Attributes:
        customer: State of customers.
        terminal: State of terminals.
    """

    customer: Span
    terminal: Span

    @classmethod
    def needed_by(cls, view: FeatureView) -> StateLayout:
        """What a view needs."""
        return cls.named(view.name, view.horizon_us(Entity.CUSTOMER), view.horizon_us(Entity.TERMINAL))

    @classmethod
    def named(cls, view: str, customer_us: int, terminal_us: int) -> StateLayout:
        """What a view of this name needs, from its two horizons."""
        return cls(Span(view, customer_us), Span(view, terminal_us))

    def of(self, entity: Entity) -> Span:
        """How far back state of this kind of entity is kept."""
        return self.customer if entity is Entity.CUSTOMER else self.terminal

    def covers(self, other: StateLayout) -> bool:
        """Whether whoever needs the other finds enough in states of this one."""
        return all(self.of(entity).horizon_us >= other.of(entity).horizon_us for entity in Entity)

    def joined(self, others: Iterable[StateLayout]) -> StateLayout:
        """The least layout that covers this one and others, whatever their order.

        Where two ask for the same, this one is named before the others and the others by their names.
        """
        customer, terminal = self
        for other in sorted(others, key=lambda layout: (layout.customer.view, layout.terminal.view)):
            customer = max(customer, other.customer, key=lambda span: span.horizon_us)
            terminal = max(terminal, other.terminal, key=lambda span: span.horizon_us)
        return StateLayout(customer, terminal)

    def lacks(self, other: StateLayout) -> str:
        """What the other needs beyond this one, for people; empty if nothing."""
        short = [entity for entity in Entity if other.of(entity).horizon_us > self.of(entity).horizon_us]
        return " and ".join(
            f"{_days(other.of(entity).horizon_us)} of a {entity}, of which {_days(self.of(entity).horizon_us)} are kept"
            for entity in short
        )


BASE_LAYOUT: Final = StateLayout.needed_by(CARD_V1)
"""How far back state is kept in any case: states that are there were folded so from the first release on."""


def _days(span_us: int) -> str:
    """A span as days.

    >>> _days(44 * US_PER_DAY), _days(44 * US_PER_DAY + US_PER_DAY // 2)
    ('44 days', '44.5 days')
    """
    return f"{span_us / US_PER_DAY:g} days"
