"""Builds what the drift app tells those who watch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache

from shared.adapters.postgres import parse_postgres
from shared.adapters.postgres_meters import PostgresMeters
from shared.adapters.postgres_readings import PostgresReadings
from shared.adapters.system_clock import SystemClock
from shared.bootstrap.parts import BUILDING, DATABASE, configured
from shared.services.readings import Watching
from shared.settings import DriftSettings


def build_drift_metrics(environment: Mapping[str, str]) -> Watching:
    """Build it; raises as `build_score_app`."""
    configured(DriftSettings, environment)
    where = parse_postgres(DATABASE, environment)
    return Watching(PostgresMeters(where, "drift-meters"), PostgresReadings(where, "drift-readings"), SystemClock())


def drift_metrics() -> Watching:
    """What this process of the drift app tells."""
    with BUILDING:
        return _drift_metrics()


@cache
def _drift_metrics() -> Watching:
    return build_drift_metrics(os.environ)
