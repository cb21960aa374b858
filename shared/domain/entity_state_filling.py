"""Lets state reach further back than it was kept: first the horizon is raised, then what is missing is filled in.

From the raise on nothing younger than the new horizon is dropped; what had been dropped before is missing, and the
header says so, until it is folded from the raw events. Neither raises the version: no event is added to what the
entity knows, and decisions go on to name versions as before. A filled state equals, in every byte, the one that would
have been kept under the new horizon from the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shared.domain.entity_state import EntityState, Folded, Header, LaterLabel, fold
from shared.domain.entity_state_layout import Span
from shared.domain.entity_state_tiles import FOREVER_US, ROOT_WIDTH_US, Tile
from shared.domain.features import PastTransaction


def raised(header: Header, span: Span) -> Header:
    """The header from now on; the same one if that much is kept already."""
    if header.horizon_us >= span.horizon_us:
        return header
    filled_us = None if header.greatest_us is None else header.complete_us
    return header._replace(view=span.view, horizon_us=span.horizon_us, filled_us=filled_us)


def missing(header: Header) -> tuple[int, int] | None:
    """The event times that may be missing, as first and first behind, microseconds; None if nothing is.

    Of events before them state needs none, and those from the end on it holds.
    """
    if header.filled_us is None or header.greatest_us is None or header.oldest_us is None:
        return None
    return header.oldest_us, (header.greatest_us - header.filled_us) & -ROOT_WIDTH_US


class Past:
    """What a state lacks, folded outside any lock, so that under the lock only whole ranges are put in.

    Attributes:
        events: The events, each with the labels that are known of it so far.
        by_range: Their tiles, by the start of their widest range.
    """

    __slots__ = ("by_range", "events")

    def __init__(self, header: Header, events: Sequence[PastTransaction]) -> None:
        """Fold.

        Args:
            header: Of the state, raised.
            events: Every event of the entity that `missing` names, read after the raise was committed, with all labels
                that had raised the entity's version by then; more events and labels do no harm.
        """
        self.events = tuple(events)
        self.by_range: dict[int, list[Tile]] = {}
        everything = EntityState(Header(header.view, header.entity, FOREVER_US))
        for tile in fold(everything, self.events).state.tiles:
            self.by_range.setdefault(tile.start_us & -ROOT_WIDTH_US, []).append(tile)


def filled(state: EntityState, past: Past, later: Sequence[LaterLabel] = ()) -> Folded:
    """The state with what it lacked.

    Args:
        state: As it is now; its horizon was raised before the past was read.
        past: What it lacked.
        later: Labels of these events that raised the version since; labels that are there already do no harm.

    Returns:
        The state, complete and of the same version, and the tiles to write and to delete.
    """
    header, tiles = state
    oldest_us = header.oldest_us
    held = {tile.start_us & -ROOT_WIDTH_US for tile in tiles}
    written: dict[int, Tile] = {}
    for start_us, parts in past.by_range.items():
        if start_us not in held and oldest_us is not None and start_us >= oldest_us:
            tiles = tiles.with_range(start_us, start_us + ROOT_WIDTH_US, parts)
            written |= {tile.start_us: tile for tile in parts}
    # Ranges that state holds a part of: events that came late since the raise, or the last range before it.
    beside = [event for event in past.events if event.event_time_us & -ROOT_WIDTH_US in held]
    labels = [LaterLabel(event.event_time_us, label) for event in beside for label in event.labels]
    folded = fold(EntityState(header, tiles), [replace(event, labels=()) for event in beside], [*labels, *later])
    for start_us in folded.removed:
        written.pop(start_us, None)
    written |= {tile.start_us: tile for tile in folded.changed}
    return Folded(
        EntityState(header._replace(filled_us=None), folded.state.tiles),
        tuple([written[start_us] for start_us in sorted(written)]),
        folded.removed,
        (),
        (),
    )
