"""The rules as they are in operation, held against hours of made-up samples by promtool."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from monitoring.alerts import ALERTS
from monitoring.rendering import FOLDER
from twin.services.prometheus import program

type Case = tuple[dict[str, str], dict[str, bool]]

PRESENT = {"tollgate_champion_present": "1x240"}
BUCKET = 'api_request_duration_seconds_bucket{app="score",route="score",le="%s"}'

CASES: dict[str, Case] = {
    # A hundred requests a minute: 6 % slow from the 30th minute to the 60th.
    "latency": (
        {BUCKET % "0.5": "0+100x30 3000+94x30 5820+100x60", BUCKET % "5.0": "0+100x120", BUCKET % "+Inf": "0+100x120"},
        {"29m": False, "33m": False, "45m": True, "59m": True, "70m": False},
    ),
    "errors": (
        {
            'api_requests_total{app="score"}': "0+100x120",
            'api_errors_total{app="score",fault="server"}': "0+4x30 120+8x30 360+0x60",
            'api_errors_total{app="score",fault="client"}': "0+50x120",
        },
        {"30m": False, "33m": False, "45m": True, "75m": False},
    ),
    "confidence": (
        {
            "model_prediction_confidence_sum": "0+90x60 5400+55x60 8700+90x60",
            "model_prediction_confidence_count": "0+100x180",
        },
        {"60m": False, "80m": False, "110m": True, "150m": False},
    ),
    "lag": (
        {"tollgate_outbox_oldest_age_seconds": "5x30 200x20 5x30"},
        {"29m": False, "32m": False, "40m": True, "55m": False},
    ),
    "dead-letters": (
        {
            'tollgate_dead_letters_total{hub="transactions",field="event"}': "3x120",
            'tollgate_dead_letters_total{hub="transactions",field="amount"}': "_x60 1x60",
        },
        {"50m": False, "61m": True, "74m": True, "80m": False},
    ),
    "drift": (
        {
            'tollgate_retraining_triggers_open{cause="feature drift"}': "0x60 1x30 0x30",
            'tollgate_retraining_triggers_open{cause="schedule"}': "1x120",
        },
        {"59m": False, "62m": True, "95m": False},
    ),
    "gate-refused": (
        {'tollgate_gate_verdicts_total{result="refused"}': "2x60 3x180"},
        {"59m": False, "62m": True, "110m": True, "130m": False},
    ),
    "replay-mismatch": (
        {'tollgate_replays_total{app="score",verdict="different"}': "_x60 1x180"},
        {"59m": False, "62m": True, "110m": True, "130m": False},
    ),
    "no-champion": (
        {"tollgate_champion_present": "1x30 0x10 1x60"},
        {"30m": False, "35m": True, "45m": False},
    ),
    "nothing-heard": (
        {"tollgate_champion_present": "1x30 _x40 1x60"},
        {"30m": False, "40m": False, "60m": True, "75m": False},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_rule_speaks_when_it_should_and_then_is_silent(name: str, tmp_path: Path) -> None:
    series, expected = CASES[name]
    alert = next(alert for alert in ALERTS if alert.name == name)
    given = {**PRESENT, **series}
    labels = {"severity": alert.severity.name.lower()}
    own = {"cause": "feature drift"} if name == "drift" else {}
    firing = [
        {
            "exp_labels": {**labels, **own},
            "exp_annotations": {"summary": alert.summary, "description": alert.action},
        }
    ]
    document = {
        "rule_files": [str(FOLDER / "prometheus" / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": key, "values": values} for key, values in given.items()],
                "alert_rule_test": [
                    {"eval_time": at, "alertname": name, "exp_alerts": firing if fires else []}
                    for at, fires in expected.items()
                ],
            }
        ],
    }
    path = tmp_path / "test.yml"
    path.write_text(json.dumps(document))
    done = subprocess.run(
        [program("promtool"), "test", "rules", path], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(expected.values()) == {True, False}
