"""Metrics to Application Insights by OpenTelemetry.

The SDK's own readers fire on a thread of theirs and swallow what goes wrong. Here the caller says when, and is told: a
reader that never fires by itself, and an exporter in between that keeps what became of the last export.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from shared.domain.errors import Transient

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter

    from shared.services.metering import Sample

_SCOPE: Final = "tollgate"

QUIET: Final = {
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
    "APPLICATIONINSIGHTS_OPENTELEMETRY_RESOURCE_METRIC_DISABLED": "true",
}
"""The exporter reports about itself to Microsoft and fetches switches from there, unless these variables say no."""

NOISY: Final = "azure.monitor.opentelemetry.exporter"


class OtelMetrics:
    """Counters as what was added, readings as gauges; used by one thread at a time."""

    def __init__(self, exporter: MetricExporter) -> None:
        """Tell nothing yet.

        Args:
            exporter: Where to; asked for deltas of counters.
        """
        self._exporter = exporter
        self._outcome = _outcome_of(exporter)
        self._service = os.environ.get("WEBSITE_SITE_NAME", "tollgate-drift")

    def tell(self, added: Sequence[Sample], readings: Sequence[Sample]) -> None:
        """Send it now, by instruments of this call alone: a gauge would say its last value ever after.

        Raises:
            Transient: The service did not take it.
        """
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - paid by those who tell
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415

        reader = PeriodicExportingMetricReader(self._exporter, export_interval_millis=math.inf)
        provider = MeterProvider([reader], Resource({"service.name": self._service}), shutdown_on_exit=False)
        meter = provider.get_meter(_SCOPE)
        counters = {name: meter.create_counter(name) for name in sorted({sample.name for sample in added})}
        gauges = {name: meter.create_gauge(name) for name in sorted({sample.name for sample in readings})}
        for sample in added:
            counters[sample.name].add(sample.value, dict(sample.labels))
        for sample in readings:
            gauges[sample.name].set(sample.value, dict(sample.labels))
        self._outcome.clear()
        provider.force_flush()
        if self._outcome != [True]:
            raise Transient("telling Application Insights: it did not take all metrics")

    def close(self) -> None:
        """Give back what the exporter holds."""
        self._exporter.shutdown()


def azure_exporter(connection_string: str) -> MetricExporter:
    """The exporter to Application Insights, with the app's identity where its settings say so.

    Nothing is kept on disk: what was not taken is told by the next call.
    """
    os.environ.update(QUIET)
    logging.getLogger(NOISY).setLevel(logging.ERROR)
    from azure.monitor.opentelemetry.exporter import AzureMonitorMetricExporter  # noqa: PLC0415 - after the variables

    return AzureMonitorMetricExporter(connection_string=connection_string, disable_offline_storage=True)


def _outcome_of(exporter: MetricExporter) -> list[bool]:
    """A list to which each export of an exporter adds whether all was taken."""
    from opentelemetry.sdk.metrics.export import MetricExportResult  # noqa: PLC0415 - paid by those who tell

    outcomes: list[bool] = []
    export = exporter.export

    def noted(*args: Any, **options: Any) -> MetricExportResult:
        result = export(*args, **options)
        outcomes.append(result is MetricExportResult.SUCCESS)
        return result

    exporter.export = noted  # type: ignore[method-assign]  # the reader swallows the result
    return outcomes
