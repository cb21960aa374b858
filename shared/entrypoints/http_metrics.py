"""Counts in Prometheus's text format (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Mapping

import azure.functions as func

from shared.services.metering import FAMILIES, Meters, Sample

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics(meters: Meters, gauges: Mapping[str, tuple[str, float]]) -> func.HttpResponse:
    """`GET /api/metrics`: counters and histograms of all worker processes of this instance.

    Args:
        meters: The counters.
        gauges: Values of this moment and this process, by name: what they tell and the value.
    """
    lines: list[str] = []
    for family in FAMILIES:
        lines += (
            f"# HELP {family.name} {family.text}",
            f"# TYPE {family.name} {'histogram' if family.buckets else 'counter'}",
        )
        lines += [_line(sample) for sample in meters.samples(family)]
    for name, (text, value) in gauges.items():
        lines += (f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name} {value:g}")
    return func.HttpResponse("\n".join((*lines, "")), headers={"Content-Type": _CONTENT_TYPE})


def _line(sample: Sample) -> str:
    labels = ",".join(f'{name}="{value}"' for name, value in sample.labels)
    return f"{sample.name}{{{labels}}} {sample.value!r}" if labels else f"{sample.name} {sample.value!r}"
