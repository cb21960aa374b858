"""The rendered files are those of the specification, and each reader accepts them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard as GrafanaDashboard

from monitoring.alerts import ALERTS
from monitoring.panels import DASHBOARDS
from monitoring.rendering import FOLDER, WORKSPACE, files, kql_of, promql_of, write
from monitoring.specification import Dashboard, Series
from shared.services.metering import FAMILIES
from shared.services.readings import KINDS
from twin.services.prometheus import program

ROOT = Path(__file__).resolve().parents[2]
SERIES = [series for dashboard in DASHBOARDS for panel in dashboard.panels for series in panel.series]
RENDERED = list(files())
METRIC = re.compile(r"\b((?:api|model|tollgate)_[a-z_]+)\b")
TOLD = {kind.name for kind in KINDS} | {
    name
    for family in FAMILIES
    for name in ([f"{family.name}_{end}" for end in ("bucket", "sum", "count")] if family.buckets else [family.name])
}


def lint(*queries: str) -> list[list[str]]:
    command = ["node", str(ROOT / "infra" / "node" / "lint_queries.cjs")]
    done = subprocess.run(command, input=json.dumps(queries), text=True, capture_output=True, check=True, timeout=60)
    found: list[list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("name", "text"), RENDERED, ids=[str(name) for name, _ in RENDERED])
def test_a_file_is_what_the_specification_says(name: Path, text: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == text, "run `python -m monitoring`"


def test_no_file_is_left_over(tmp_path: Path) -> None:
    assert len(write(tmp_path)) == len(RENDERED)
    assert write(tmp_path) == []
    for folder in ("azure", "grafana/provisioning/dashboards"):
        there = {path.relative_to(FOLDER) for path in (FOLDER / folder).rglob("*.json")}
        assert there == {path.relative_to(tmp_path) for path in (tmp_path / folder).rglob("*.json")}


def _lost(written: object, understood: object, place: str = "") -> list[str]:
    """What Grafana's own model of a dashboard left out, or took for something else."""
    if isinstance(written, dict) and isinstance(understood, dict):
        return [
            place_lost
            for key, value in written.items()
            for place_lost in (
                _lost(value, understood[key], f"{place}.{key}") if key in understood else [f"{place}.{key}"]
            )
        ]
    if isinstance(written, list) and isinstance(understood, list) and len(written) == len(understood):
        pairs = enumerate(zip(written, understood, strict=True))
        return [lost for number, (one, other) in pairs for lost in _lost(one, other, f"{place}[{number}]")]
    return [] if written == understood else [place]


DRAWN = [name for name, _ in RENDERED if name.suffix == ".json" and {"grafana", "dashboards"} & set(name.parts)]


@pytest.mark.parametrize("name", DRAWN, ids=str)
def test_grafana_knows_every_field_of_a_dashboard(name: Path) -> None:
    register_default_plugins()
    written = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    for panel in written["panels"]:
        for target in panel["targets"]:
            for newer in ("dashboardTime", "timeColumn"):  # of Azure's logs; the model is Grafana 10.1's
                target.get("azureLogAnalytics", {}).pop(newer, None)
    understood = json.loads(JSONEncoder().encode(GrafanaDashboard.from_json(written)))
    assert _lost(written, understood) == []
    written["panels"][0]["fieldConfig"]["defaults"]["unti"] = "s"
    understood = json.loads(JSONEncoder().encode(GrafanaDashboard.from_json(written)))
    assert _lost(written, understood) == [".panels[0].fieldConfig.defaults.unti"]


def test_what_is_asked_for_is_told() -> None:
    texts = [text for series in SERIES for text in (series.promql, series.kql)]
    texts += [text for alert in ALERTS for text in (alert.promql, alert.kql)]
    asked = {name for text in texts for name in METRIC.findall(text)}
    assert asked <= TOLD, "a metric that nobody tells"
    origin = {"api_requests_total", "api_errors_total", "model_predictions_total"}
    assert origin <= asked
    assert {"api_request_duration_seconds_bucket", "model_prediction_confidence_sum"} <= asked
    assert "model_prediction_latency_seconds_sum" in asked


def test_every_promised_alert_is_there() -> None:
    promised = {"latency", "errors", "confidence", "lag", "dead-letters", "drift", "quality", "gate-refused"}
    assert promised | {"replay-mismatch", "no-champion"} <= {alert.name for alert in ALERTS}
    assert len({alert.name for alert in ALERTS}) == len(ALERTS)


def test_prometheus_accepts_the_rules() -> None:
    done = subprocess.run(
        [program("promtool"), "check", "rules", FOLDER / "prometheus" / "alerts.yml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_prometheus_accepts_its_configuration(tmp_path: Path) -> None:
    text = (FOLDER / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    path = tmp_path / "prometheus.yml"
    path.write_text(text.replace("/etc/prometheus", str(FOLDER / "prometheus")), encoding="utf-8")
    done = subprocess.run(
        [program("promtool"), "check", "config", path], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workspace_accepts_the_queries() -> None:
    queries = [kql_of(series, "TimeGenerated > ago(1h)", "5m") for series in SERIES]
    queries += [alert.kql for alert in ALERTS]
    found = lint(*queries)
    assert [(query, messages) for query, messages in zip(queries, found, strict=True) if messages] == []


@pytest.mark.parametrize("mistake", [("Sum", "Sums"), ("summarize", "summarise"), ("AppMetrics", "AppMetric")])
def test_a_planted_mistake_in_a_query_is_found(mistake: tuple[str, str]) -> None:
    series = next(series for series in SERIES if "sum(Sum)" in series.kql)
    planted = kql_of(Series(series.legend, "", series.kql.replace(*mistake)), "true", "5m")
    assert lint(planted)[0]


def test_alerts_leave_the_time_range_to_the_rule_and_panels_do_not() -> None:
    assert not [alert.name for alert in ALERTS if "{filter}" in alert.kql or "ago(" in alert.kql]
    assert not [series.kql for series in SERIES if series.kql.count("{filter}") != 1]
    assert not [series.promql for series in SERIES if "{window}" in promql_of(series, "5m")]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: str(dashboard.name))
@pytest.mark.parametrize("folder", ["grafana/provisioning/dashboards", "azure/dashboards"])
def test_a_dashboard_is_laid_out(dashboard: Dashboard, folder: str) -> None:
    text = (FOLDER / folder / f"{dashboard.name}.json").read_text(encoding="utf-8")
    document = json.loads(text)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in document["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in document["panels"]}) == len(places)
    assert all(panel["targets"] and panel["description"] for panel in document["panels"])
    assert "{window}" not in text
    assert "{filter}" not in text
    assert (WORKSPACE in text) == folder.startswith("azure")
