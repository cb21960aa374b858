"""Builds what an app counts with."""

from __future__ import annotations

from shared.adapters.postgres import PostgresConnection
from shared.adapters.postgres_meters import PostgresMeters
from shared.adapters.process_cells import ProcessCells, shared_folder
from shared.ports.clock import Clock
from shared.services.metering import N_CELLS, Meters
from shared.services.metering_flush import MeterFlush


def meters_of(app: str, where: PostgresConnection, flush_s: float, clock: Clock) -> Meters:
    """The meters of this process, whose counts reach the database in the background from now on."""
    cells = ProcessCells(shared_folder(app), N_CELLS)
    MeterFlush(app, cells, PostgresMeters(where, f"{app}-meters"), clock, estate=cells).start(flush_s)
    return Meters(cells)
