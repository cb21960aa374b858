"""What is kept of feature views, in Postgres; for one thread at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from shared.adapters.postgres_errors import translated
from shared.adapters.postgres_ledger_statements import ENTITY_CODES
from shared.domain.errors import BrokenInvariant
from shared.domain.kept_view import KeptView, Place, ViewStatus

if TYPE_CHECKING:
    from shared.adapters.postgres_session import PostgresSession

_COLUMNS: Final = """name, definition, status, customer_horizon_us, terminal_horizon_us, declared_at_us, updated_at_us,
    completed_at_us, entity, entity_key, entities, transactions"""
_KEPT: Final = f"SELECT {_COLUMNS} FROM tollgate.feature_views ORDER BY name"  # noqa: S608 - constants
_KEEP: Final = f"""
INSERT INTO tollgate.feature_views ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (name) DO NOTHING
"""  # noqa: S608 - constants
_ONE: Final = f"SELECT {_COLUMNS} FROM tollgate.feature_views WHERE name = %s"  # noqa: S608 - constants
_NOTE: Final = """
UPDATE tollgate.feature_views SET status = %s, updated_at_us = %s, completed_at_us = %s, entity = %s, entity_key = %s,
    entities = %s, transactions = %s
WHERE name = %s
"""

_ENTITIES: Final = {code: entity for entity, code in ENTITY_CODES.items()}


class PostgresViewBook:
    """Rows of `tollgate.feature_views`."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def kept(self) -> Sequence[KeptView]:
        """All of them, by name. Cost: one round trip."""
        with translated("reading feature views"), self._session.transaction() as connection:
            return [_view(row) for row in connection.execute(_KEPT)]

    def keep(self, view: KeptView) -> KeptView:
        """Keep a view, unless one of its name is kept. Cost: two round trips."""
        with translated("keeping a feature view"), self._session.transaction() as connection:
            connection.execute(
                _KEEP,
                [
                    view.name,
                    view.definition,
                    view.status,
                    view.customer_horizon_us,
                    view.terminal_horizon_us,
                    view.declared_at_us,
                    view.updated_at_us,
                    view.completed_at_us,
                    *_place(view.place),
                    view.entities,
                    view.transactions,
                ],
            )
            row = connection.execute(_ONE, [view.name]).fetchone()
        if row is None:
            raise BrokenInvariant(f"the feature view {view.name} is not there after it was kept")
        return _view(row)

    def note(self, view: KeptView) -> None:
        """Keep how far it has come. Cost: one round trip."""
        progress = [view.updated_at_us, view.completed_at_us, *_place(view.place), view.entities, view.transactions]
        with translated("noting a feature view"), self._session.transaction() as connection:
            if not connection.execute(_NOTE, [view.status, *progress, view.name]).rowcount:
                raise BrokenInvariant(f"the feature view {view.name} is not kept")


def _place(place: Place | None) -> tuple[int | None, str | None]:
    return (None, None) if place is None else (ENTITY_CODES[place.entity], place.key)


def _view(row: tuple[Any, ...]) -> KeptView:
    name, definition, status, customer_us, terminal_us, declared, updated, completed, entity, key, *counts = row
    return KeptView(
        name,
        definition,
        ViewStatus(status),
        customer_us,
        terminal_us,
        declared_at_us=declared,
        updated_at_us=updated,
        completed_at_us=completed,
        place=None if entity is None else Place(_ENTITIES[entity], key),
        entities=counts[0],
        transactions=counts[1],
    )
