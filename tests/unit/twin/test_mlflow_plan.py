"""A twin with MLflow: one more service, one more setting, and nothing of either without the switch."""

from __future__ import annotations

from pathlib import Path

import pytest

from twin.services.mlflow import mlflow_service
from twin.services.modes import Mode
from twin.services.plan import Plan, plan
from twin.services.settings import APPS, TwinSettings


def planned(tmp_path: Path, mode: Mode) -> Plan:
    return plan(TwinSettings.read({"TOLLGATE_HOME": str(tmp_path), "TWIN_PORT_MLFLOW": "5055"}), mode)


def test_it_starts_beside_the_apps_after_what_it_needs(tmp_path: Path) -> None:
    names = [[service.name for service in layer] for layer in planned(tmp_path, Mode(mlflow=True)).layers]
    assert names == [["postgres", "azurite", "broker"], ["mlflow", *APPS]]


def test_only_the_retrain_app_is_told_where_it_is(tmp_path: Path) -> None:
    made = planned(tmp_path, Mode(mlflow=True))
    told = {app: made.app_settings(app).get("MLFLOW_TRACKING_URI") for app in APPS}
    assert told == {**dict.fromkeys(APPS), "retrain": "http://127.0.0.1:5055"}


def test_without_the_switch_there_is_no_registry(tmp_path: Path) -> None:
    made = planned(tmp_path, Mode())
    assert "mlflow" not in {service.name for layer in made.layers for service in layer}
    assert made.app_settings("retrain")["MLFLOW_TRACKING_URI"] == ""


def test_its_passwords_are_not_on_its_command_line_and_it_reports_to_nobody(tmp_path: Path) -> None:
    settings = TwinSettings.read({"TOLLGATE_HOME": str(tmp_path)})
    service = mlflow_service(settings)
    assert not [word for word in service.command if "tollgate-local" in word or "AccountKey" in word]
    assert service.environment["MLFLOW_DISABLE_TELEMETRY"] == service.environment["DO_NOT_TRACK"] == "true"
    assert service.command[service.command.index("--host") + 1] == "127.0.0.1"


@pytest.mark.parametrize("other", ["identity", "docker"])
def test_switches_that_do_not_go_together_say_so(other: str) -> None:
    mode = Mode(mlflow=True, identity=other == "identity", docker=other == "docker")
    assert f"--{other}" in mode.problem()
    assert "--mlflow" in mode.problem()


def test_a_mode_that_was_remembered_before_there_was_mlflow_is_still_read(tmp_path: Path) -> None:
    (tmp_path / "mode.json").write_text('{"packages": true, "identity": false}', encoding="utf-8")
    assert Mode.load(tmp_path) == Mode(packages=True)
