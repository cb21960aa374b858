"""The use case that lets a new feature view decide: entity state is made to reach back as far as it looks.

The view is declared, so that entities made from then on are kept far enough back; then the entities that are there are
brought to it, a few at a time, in the order of their keys, while others decide. How far that has come is kept, so a
run may be broken off anywhere, and the next one goes on. Only when every entity is done is the view complete.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from shared.domain.entity_state_layout import Span, StateLayout
from shared.domain.errors import Conflict
from shared.domain.feature_view import Entity, FeatureView
from shared.domain.kept_view import (
    KeptView,
    Place,
    ViewStatus,
    complete_layout,
    declared_layout,
    why_changed,
)
from shared.ports.clock import Clock
from shared.ports.views import StateFilling, ViewBook

_log = logging.getLogger(__name__)

GROUP: Final = 2_000
"""Entities looked at before the place is kept. What terminals lack is read for a group at once, because raw
transactions have no index by terminal: fewer groups are fewer scans, and a group is what a killed run does again."""

_ORDER: Final = tuple(Entity)


class Backfilling:
    """Fills entity state for views."""

    def __init__(self, book: ViewBook, filling: StateFilling, clock: Clock, *, group: int = GROUP) -> None:
        """Prepare.

        Args:
            book: What is kept of views.
            filling: Fills.
            clock: Dates what is kept.
            group: Entities between two notes of how far it has come.
        """
        self._book = book
        self._filling = filling
        self._clock = clock
        self._group = group

    def run(self, view: FeatureView, told: Callable[[KeptView, int], None]) -> KeptView:
        """Make a view complete, or go on with it. A complete one is looked through again, which changes nothing.

        Args:
            view: Which one.
            told: Told how far it has come after each group, and how many entities there are in all.

        Returns:
            What is kept of the view now: it is complete.

        Raises:
            Conflict: Another definition was kept under the name, or somebody else is filling.
            Transient: The store cannot do it now; running again goes on.
            BrokenInvariant: As for `StateFilling.fill`.
        """
        with self._filling.alone():
            kept = self._book.kept()
            changed = why_changed(view, kept)
            if changed:
                raise Conflict("view", f"{view.name} cannot be filled: {changed}")
            known = self._book.keep(KeptView.of(view, self._first_status(view, kept), self._clock.now_us()))
            if known.status is ViewStatus.DECLARED:
                self._filling.outlast_writers()
                known = self._noted(replace(known, status=ViewStatus.FILLING))
            return self._filled(known, self._lacking(known, kept), told)

    @staticmethod
    def _first_status(view: FeatureView, kept: Sequence[KeptView]) -> ViewStatus:
        is_covered = complete_layout(kept).covers(StateLayout.needed_by(view))
        return ViewStatus.COMPLETE if is_covered else ViewStatus.DECLARED

    @staticmethod
    def _lacking(view: KeptView, kept: Sequence[KeptView]) -> list[Entity]:
        """The kinds of entities whose state others do not keep far enough back anyway."""
        others = complete_layout(item for item in kept if item.name != view.name)
        return [entity for entity in _ORDER if others.of(entity).horizon_us < view.layout.of(entity).horizon_us]

    def _filled(self, view: KeptView, lacking: Sequence[Entity], told: Callable[[KeptView, int], None]) -> KeptView:
        """Go on where an earlier run ended, to the end."""
        total = sum(self._filling.count(entity) for entity in lacking)
        is_again = view.status is ViewStatus.COMPLETE
        place = view.place if not is_again else None
        at = replace(view, entities=0, transactions=0) if is_again else view
        for entity in lacking:
            if place is not None and _ORDER.index(entity) < _ORDER.index(place.entity):
                continue
            after = place.key if place is not None and place.entity is entity else ""
            while (done := self._filling.fill(entity, self._span(entity), after, self._group)) is not None:
                after = done.key
                at = replace(
                    at,
                    place=Place(entity, after),
                    entities=at.entities + done.entities,
                    transactions=at.transactions + done.transactions,
                )
                if not is_again:
                    at = self._noted(at)
                told(at, total)
        if is_again:
            return view
        complete = self._noted(replace(at, status=ViewStatus.COMPLETE, completed_at_us=self._clock.now_us()))
        _log.info("entity state is complete for a feature view", extra={"view": view.name, "entities": at.entities})
        return complete

    def _span(self, entity: Entity) -> Span:
        """How far back a kind is to be kept, for all views that are declared by now."""
        return declared_layout(self._book.kept()).of(entity)

    def _noted(self, view: KeptView) -> KeptView:
        noted = replace(view, updated_at_us=self._clock.now_us())
        self._book.note(noted)
        return noted
