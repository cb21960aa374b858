"""The specification as Prometheus, Grafana and Azure read it.

`python -m monitoring` writes all files; a test writes them again and compares.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from monitoring.alerts import ALERTS
from monitoring.panels import DASHBOARDS
from monitoring.specification import Alert, Dashboard, Panel, Series

FOLDER: Final = Path(__file__).resolve().parent

RATE_WINDOW: Final = "$__rate_interval"
"""Grafana's own: four scrapes at least."""
WORKSPACE: Final = "@@workspace@@"
"""Stands for the workspace's resource id in the dashboards for Azure, which is known once it is made."""

_WIDTH: Final = 12
_HEIGHT: Final = 8

type Document = dict[str, Any]
type _Target = Callable[[Series], Document]


def prometheus_rules(alerts: Sequence[Alert] = ALERTS, *, window: str = "", hold: str = "") -> Document:
    """Rules of Prometheus.

    Args:
        alerts: Which.
        window: Instead of each alert's own; a test cannot wait for an hour.
        hold: Likewise.
    """
    rules = [
        {
            "alert": alert.name,
            "expr": alert.promql.replace("{window}", window or alert.window),
            "for": hold or alert.hold,
            "labels": {"severity": alert.severity.name.lower()},
            "annotations": {"summary": alert.summary, "description": alert.action},
        }
        for alert in alerts
    ]
    return {"groups": [{"name": "tollgate", "rules": rules}]}


def promql_of(series: Series, window: str) -> str:
    """The expression of a panel's line."""
    return series.promql.replace("{window}", window)


def kql_of(series: Series, time_filter: str, width: str) -> str:
    """The query of a panel's line; a line without labels is called by its legend."""
    query = series.kql.replace("{filter}", time_filter).replace("{bin}", width)
    return query if "{{" in series.legend else f"{query} | project-rename ['{series.legend}'] = value"


def grafana_dashboard(dashboard: Dashboard) -> Document:
    """A dashboard of Grafana on Prometheus."""
    source = {"type": "prometheus", "uid": "prometheus"}

    def target(series: Series) -> Document:
        return {"expr": promql_of(series, RATE_WINDOW), "legendFormat": series.legend, "range": True}

    return _dashboard(dashboard, source, target, [])


def azure_dashboard(dashboard: Dashboard) -> Document:
    """The same dashboard of the Grafana that Azure Monitor has built in, on the workspace."""
    source = {"type": "grafana-azure-monitor-datasource", "uid": "${source}"}

    def target(series: Series) -> Document:
        return {
            "queryType": "Azure Log Analytics",
            "azureLogAnalytics": {
                "dashboardTime": True,
                "query": kql_of(series, "$__timeFilter(TimeGenerated)", "$__interval"),
                "resources": [WORKSPACE],
                "resultFormat": "time_series",
                "timeColumn": "TimeGenerated",
            },
        }

    variable = {"name": "source", "label": "Data source", "type": "datasource", "query": source["type"], "hide": 2}
    return _dashboard(dashboard, source, target, [variable])


def azure_alerts(alerts: Sequence[Alert] = ALERTS) -> list[Document]:
    """The alerts as the infrastructure reads them: each query returns one row for each breach."""
    return [
        {
            "name": alert.name,
            "severity": int(alert.severity),
            "summary": alert.summary,
            "action": alert.action,
            "query": alert.kql,
            "span": alert.span,
        }
        for alert in alerts
    ]


def files() -> Iterator[tuple[Path, str]]:
    """Every rendered file with its path under this folder."""
    head = "# Rendered by `python -m monitoring`; JSON is YAML.\n"
    yield Path("prometheus/alerts.yml"), _text(prometheus_rules(), head)
    yield Path("azure/alerts.json"), _text(azure_alerts())
    for dashboard in DASHBOARDS:
        name = f"{dashboard.name}.json"
        yield Path("grafana/provisioning/dashboards") / name, _text(grafana_dashboard(dashboard))
        yield Path("azure/dashboards") / name, _text(azure_dashboard(dashboard))


def write(folder: Path = FOLDER) -> list[Path]:
    """Write every file; returns those that changed."""
    changed = []
    for name, text in files():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def _dashboard(dashboard: Dashboard, source: Mapping[str, str], target: _Target, variables: list[Document]) -> Document:
    return {
        "uid": f"tollgate-{dashboard.name}",
        "title": f"Tollgate: {dashboard.title}",
        "tags": ["tollgate"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": variables},
        "annotations": {"list": []},
        "panels": [_panel(place, panel, source, target) for place, panel in enumerate(dashboard.panels)],
    }


def _panel(place: int, panel: Panel, source: Mapping[str, str], target: _Target) -> Document:
    steps: list[Document] = [{"color": "green", "value": None}]
    custom: Document = {"fillOpacity": 10, "showPoints": "never", "spanNulls": True}
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
        custom["thresholdsStyle"] = {"mode": "line"}
    return {
        "id": place + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": dict(source),
        "gridPos": {"x": place % 2 * _WIDTH, "y": place // 2 * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit.value,
                "custom": custom,
                "thresholds": {"mode": "absolute", "steps": steps},
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": dict(source), **target(series)}
            for number, series in enumerate(panel.series)
        ],
    }


def _text(document: object, head: str = "") -> str:
    return head + json.dumps(document, indent=2) + "\n"
