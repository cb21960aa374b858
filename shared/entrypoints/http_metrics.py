"""Counts and readings in Prometheus's text format (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import azure.functions as func

from shared.services.metering import FAMILIES, Meters, Sample
from shared.services.readings import Kind, Metric

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics(meters: Meters, gauges: Mapping[str, tuple[str, float]]) -> func.HttpResponse:
    """`GET /api/metrics` of an app that counts: counters and histograms of all worker processes of this instance.

    Args:
        meters: The counters.
        gauges: Values of this moment and this process, by name: what they tell and the value.
    """
    counted = [
        Metric(f.name, f.text, Kind.HISTOGRAM if f.buckets else Kind.COUNTER, list(meters.samples(f))) for f in FAMILIES
    ]
    now = [Metric(name, text, Kind.GAUGE, [Sample(name, (), value)]) for name, (text, value) in gauges.items()]
    return answer([*counted, *now])


def answer(told: Iterable[Metric]) -> func.HttpResponse:
    """Metrics as a scrape; those without samples are left out."""
    lines = [line for metric in told if metric.samples for line in _lines(metric)]
    return func.HttpResponse("\n".join((*lines, "")), headers={"Content-Type": _CONTENT_TYPE})


def _lines(metric: Metric) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.text}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for sample in metric.samples:
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels)
        yield f"{sample.name}{{{labels}}} {sample.value!r}" if labels else f"{sample.name} {sample.value!r}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
