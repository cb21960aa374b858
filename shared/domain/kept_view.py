"""Which feature views may decide, from what is kept of them: their definition, how far back state goes, what is filled.

A view whose windows lie within what state keeps anyway may decide at once. One that looks further back is declared
first, then filled, and decides once it is complete. Whatever was kept under a name stays its definition: a view that
says something else under the same name is refused wherever a model of it would decide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from shared.domain.canonical import Writer
from shared.domain.entity_state_layout import BASE_LAYOUT, StateLayout
from shared.domain.feature_view import (
    FEATURE_DTYPE,
    FIRST_WEEKEND_DAY,
    MEDIAN_WINDOW_US,
    NIGHT_UNTIL_HOUR,
    OUTLIER_DENOMINATOR,
    OUTLIER_NUMERATOR,
    Entity,
    FeatureView,
)

VIEW_KIND: Final = 0x56
VIEW_FORMAT: Final = 1


class ViewStatus(StrEnum):
    """How far a view has come."""

    DECLARED = "declared"
    FILLING = "filling"
    COMPLETE = "complete"


class Place(NamedTuple):
    """How far filling has come: everything before this entity is done, and so is it.

    Attributes:
        entity: What is being filled.
        key: The last one that is done.
    """

    entity: Entity
    key: str


@dataclass(frozen=True, slots=True)
class KeptView:
    """What is kept of a view.

    Attributes:
        name: Its name.
        definition: Digest of its definition, 64 hexadecimal digits.
        status: How far it has come.
        customer_horizon_us: How far behind its greatest event time a customer's state is kept for it, microseconds.
        terminal_horizon_us: The same of a terminal.
        declared_at_us: When it was asked for, our clock, microseconds since 1970 UTC.
        updated_at_us: When anything of this changed last, likewise.
        completed_at_us: When state was complete for it, likewise; None until then.
        place: How far filling has come; None before its first entity.
        entities: Entities looked at so far.
        transactions: Transactions put into their states so far.
    """

    name: str
    definition: str
    status: ViewStatus
    customer_horizon_us: int
    terminal_horizon_us: int
    declared_at_us: int
    updated_at_us: int
    completed_at_us: int | None = None
    place: Place | None = None
    entities: int = 0
    transactions: int = 0

    @classmethod
    def of(cls, view: FeatureView, status: ViewStatus, at_us: int) -> KeptView:
        """What is kept of a view from now on."""
        return cls(
            view.name,
            definition_digest(view),
            status,
            view.horizon_us(Entity.CUSTOMER),
            view.horizon_us(Entity.TERMINAL),
            declared_at_us=at_us,
            updated_at_us=at_us,
            completed_at_us=at_us if status is ViewStatus.COMPLETE else None,
        )

    @property
    def layout(self) -> StateLayout:
        """How far back state has to be kept for it."""
        return StateLayout.named(self.name, self.customer_horizon_us, self.terminal_horizon_us)


def definition_digest(view: FeatureView) -> str:
    """SHA-256 over all that a value of the view depends on, as 64 hexadecimal digits.

    Units are words for people and not part of it.
    """
    writer = Writer(VIEW_KIND, VIEW_FORMAT).text(view.name).text(FEATURE_DTYPE).integer(view.label_delay_us)
    for constant in (NIGHT_UNTIL_HOUR, FIRST_WEEKEND_DAY, MEDIAN_WINDOW_US, OUTLIER_NUMERATOR, OUTLIER_DENOMINATOR):
        writer.integer(constant)
    for feature in view.features:
        writer.text(feature.name).text(feature.measure).text(feature.null).text(feature.entity or "")
        writer.integer(feature.window_us).integer(feature.lag_us)
    return hashlib.sha256(writer.finish()).hexdigest()


def complete_layout(kept: Iterable[KeptView]) -> StateLayout:
    """How far back the state of every entity is complete."""
    return BASE_LAYOUT.joined(view.layout for view in kept if view.status is ViewStatus.COMPLETE)


def declared_layout(kept: Iterable[KeptView]) -> StateLayout:
    """How far back the state of new entities is kept."""
    return BASE_LAYOUT.joined(view.layout for view in kept)


def why_changed(view: FeatureView, kept: Sequence[KeptView]) -> str:
    """Why a view is not what was kept under its name, for people; empty if it is, or if nothing was kept yet."""
    known = {item.name: item for item in kept}.get(view.name)
    if known is None or known.definition == definition_digest(view):
        return ""
    return "its definition is not the one that was kept under this name; a changed view needs a new name"


def why_refused(view: FeatureView, kept: Sequence[KeptView]) -> str:
    """Why a view may not decide, for people; empty if it may."""
    changed = why_changed(view, kept)
    if changed:
        return changed
    lacking = complete_layout(kept).lacks(StateLayout.needed_by(view))
    if not lacking:
        return ""
    known = {item.name: item for item in kept}.get(view.name)
    progress = "" if known is None else f"; {known.status}, {known.entities:,} entities done"
    return f"it needs {lacking}{progress}: tollgate views backfill {view.name}"
