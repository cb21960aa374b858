"""Builds what the drift app tells those who watch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Final

from shared.adapters.postgres import parse_postgres
from shared.adapters.postgres_meters import PostgresMeters
from shared.adapters.postgres_readings import PostgresReadings
from shared.adapters.system_clock import SystemClock
from shared.bootstrap.noting import timed_runs
from shared.bootstrap.parts import BUILDING, DATABASE, configured
from shared.entrypoints.metrics_timers import MetricsParts
from shared.ports.clock import Clock
from shared.services.readings import Watching
from shared.services.telling import Telling
from shared.settings import DriftSettings

INSIGHTS: Final = "APPLICATIONINSIGHTS_CONNECTION_STRING"
"""The host's own setting: where there is one, the metrics go to where the traces go."""


def build_drift_metrics(environment: Mapping[str, str]) -> MetricsParts:
    """Build it; raises as `build_score_app`."""
    configured(DriftSettings, environment)
    where, clock = parse_postgres(DATABASE, environment), SystemClock()
    counts = PostgresMeters(where, "drift-meters")
    watching = Watching(counts, PostgresReadings(where, "drift-readings"), clock)
    telling = _telling(environment.get(INSIGHTS, ""), watching, counts, clock)
    return MetricsParts(watching, telling, timed_runs(where, "drift", clock))


def drift_metrics() -> MetricsParts:
    """What this process of the drift app tells."""
    with BUILDING:
        return _drift_metrics()


@cache
def _drift_metrics() -> MetricsParts:
    return build_drift_metrics(os.environ)


def _telling(connection: str, watching: Watching, counts: PostgresMeters, clock: Clock) -> Telling | None:
    if not connection:
        return None
    from shared.adapters.otel_metrics import OtelMetrics, azure_exporter  # noqa: PLC0415 - paid by those who tell

    return Telling(watching, counts, OtelMetrics(azure_exporter(connection)), clock)
