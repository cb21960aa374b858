"""`tollgate performance` against a real server, as a person calls it."""

from __future__ import annotations

import json
from contextlib import closing

import pytest
from typer.testing import CliRunner

from shared.adapters.postgres_performance import PostgresPerformanceLog
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.domain.performance import ALL, NO_FRAUDS, Measured, Metric
from shared.ports.performance import KeptFigure
from tests.conftest import MigratedDatabase
from twin.cli import app

DAY_US = 86_400_000_000
UNTIL_US = 20_000 * DAY_US  # 2024-10-04


def run(*arguments: str, code: int = 0, **environment: str | None) -> str:
    result = CliRunner(env={"DATABASE": None, "COLUMNS": "250", **environment}).invoke(app, ["performance", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def kept(days: int, measured: Measured, digest: str = "a" * 64) -> KeptFigure:
    end_us = UNTIL_US + days * DAY_US
    return KeptFigure(digest, end_us - 7 * DAY_US, end_us, measured)


@pytest.fixture(scope="module")
def measured(migrated_database: MigratedDatabase) -> MigratedDatabase:
    assert "nothing was measured yet" in run("--database", migrated_database.dsn)
    with closing(PostgresSession(migrated_database.role_connection(Role.DRIFT), "test")) as session:
        PostgresPerformanceLog(session).record(
            [
                kept(0, Measured(ALL, Metric.AUC, 0.875, 0.75, 0.9375, 1_234, 56, "")),
                kept(0, Measured(ALL, Metric.MISSED, 123_400.0, 100_000.0, 150_000.0, 1_234, 56, "")),
                kept(1, Measured(ALL, Metric.AUC, None, None, None, 99, 0, NO_FRAUDS)),
                kept(1, Measured(ALL, Metric.AUC, 0.625, None, None, 77, 6, ""), "b" * 64),
                kept(1, Measured("customer:new", Metric.AUC, 0.5, None, None, 7, 6, "")),
            ],
            1,
        )
    return migrated_database


def test_trends_are_a_row_for_each_window_and_model(measured: MigratedDatabase) -> None:
    lines = [line.split() for line in run("--database", measured.role_dsn(Role.READER)).splitlines()]
    assert lines[1][:5] == ["2024-10-04", "aaaaaaaa", "1,234", "56", "0.875"]
    assert lines[1][-1] == "1,234"
    assert lines[2][:5] == ["2024-10-05", "aaaaaaaa", "99", "0", "-"]
    assert lines[3][:5] == ["2024-10-05", "bbbbbbbb", "77", "6", "0.625"]
    assert len(lines) == 4


def test_one_metric_has_its_interval_or_why_there_is_none(measured: MigratedDatabase) -> None:
    output = run("--metric", "auc", "--model", "a" * 64, DATABASE=measured.dsn)
    assert "0.750 to 0.938" in output
    assert NO_FRAUDS in output
    assert "bbbbbbbb" not in output
    assert "1,000 to 1,500" in run("--metric", "missed fraud", DATABASE=measured.dsn)


def test_other_segments_days_and_machines(measured: MigratedDatabase) -> None:
    assert "0.500" in run("--segment", "customer:new", DATABASE=measured.dsn)
    lines = run("--json", "--since", "2024-10-05", DATABASE=measured.dsn).splitlines()
    documents = [json.loads(line) for line in lines]
    assert [(one["model"][:1], one["value"], one["note"]) for one in documents] == [
        ("a", None, NO_FRAUDS),
        ("b", 0.625, ""),
    ]
    assert (documents[0]["from"], documents[0]["until"]) == ("2024-09-28", "2024-10-05")


def test_what_cannot_be_done_is_said_in_a_line(measured: MigratedDatabase) -> None:
    assert "must be a day" in run("--since", "yesterday", DATABASE=measured.dsn, code=2)
    run("--database", "postgresql://nobody@127.0.0.1:1/nothing", code=2)
