"""What the database knows, read with the rights of the drift app from rows as the other parts write them."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from shared.adapters import postgres_readings
from shared.adapters.postgres_readings import MOST_FIELDS, SETTLED_US, PostgresReadings
from shared.adapters.schema.grants import Role
from shared.domain.errors import InvalidInput
from shared.domain.event import parse_object
from shared.domain.transaction import check_names
from shared.services.metering import REPLAYS
from shared.services.readings import KINDS
from tests.conftest import MigratedDatabase

NOW_US = 1_800_000_000_000_000
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US

type Values = dict[tuple[str, ...], float]


class Bench:
    """An empty database, rows put into it, and what is read."""

    def __init__(self, database: MigratedDatabase) -> None:
        self.readings = PostgresReadings(database.role_connection(Role.DRIFT), "tests")
        self.connection = psycopg.connect(database.dsn, autocommit=True)
        tables = (
            "log_blocks, outbox, dead_letters, drift_metrics, retraining_triggers, feedback_labels, transaction_ids, "
            "data_quality_log, pipeline_execution_log, promotion_verdicts, promotions, performance_metrics, "
            "notifications, task_metrics, tallies"
        )
        self.connection.execute(f"TRUNCATE {', '.join('tollgate.' + name.strip() for name in tables.split(','))}")

    def put(self, table: str, **values: Any) -> None:
        columns, places = ", ".join(values), ", ".join(["%s"] * len(values))
        wrapped = [Jsonb(value) if isinstance(value, dict) else value for value in values.values()]
        self.connection.execute(f"INSERT INTO tollgate.{table} ({columns}) VALUES ({places})", wrapped)

    def read(self) -> dict[str, Values]:
        found: dict[str, Values] = {}
        for sample in self.readings.read(NOW_US):
            key = tuple(value for _, value in sample.labels)
            values = found.setdefault(sample.name, {})
            assert key not in values, "a series twice: Prometheus refuses the whole scrape"
            values[key] = sample.value
        return found


@pytest.fixture
def bench(migrated_database: MigratedDatabase) -> Any:
    made = Bench(migrated_database)
    yield made
    made.connection.close()


def test_an_empty_database_says_what_is_not_there(bench: Bench) -> None:
    read = bench.read()
    assert read["tollgate_champion_present"] == {(): 0}
    assert read["tollgate_gate_verdicts_total"] == {("passed",): 0, ("refused",): 0}
    assert read["tollgate_outbox_oldest_age_seconds"] == {(): 0}
    assert read["tollgate_newest_decision_age_seconds"] == {(): 86_400}
    assert set(read["tollgate_retraining_triggers_open"].values()) == {0}
    assert set(read["tollgate_replays_total"].values()) == {0}
    assert read.keys() <= {REPLAYS.name, *(kind.name for kind in KINDS)}


@pytest.mark.parametrize("age_s", [3, 900, 40_000])
def test_lag(bench: Bench, age_s: int) -> None:
    for sequence, ago in ((0, age_s + 50), (1, age_s)):
        bench.put(
            "log_blocks",
            writer="w",
            sequence=sequence,
            previous=bytes(32),
            root=bytes(32),
            count=1,
            leaves=bytes(32),
            hash=bytes(32),
            recorded_at_us=NOW_US - ago * 1_000_000,
        )
    for ago in (70, 20):
        bench.put("outbox", transaction_id=str(ago), event_time_us=1, recorded_at_us=NOW_US - ago * 1_000_000)
    read = bench.read()
    assert read["tollgate_newest_decision_age_seconds"] == {(): age_s}
    assert read["tollgate_outbox_oldest_age_seconds"] == {(): 70}
    assert read["tollgate_outbox_waiting"] == {(): 2}


def test_what_a_sender_made_up_is_no_label(bench: Bench) -> None:
    refusals = []
    for refused in (
        lambda: check_names({"4111111111111111": 1}, (), "transaction"),
        lambda: parse_object(b'{"4111111111111111": 1, "4111111111111111": 2}'),
    ):
        with pytest.raises(InvalidInput) as refusal:
            refused()
        refusals.append(refusal.value)
    for number, error in enumerate(refusals):
        bench.put(
            "dead_letters",
            source="transactions",
            partition_id="0",
            event_offset=f"{number}",
            reason="bad",
            field=error.field,
            rule=error.rule,
            body=b"x",
            received_at_us=1,
        )
    read = bench.read()
    assert [error.field for error in refusals] == ["4111111111111111"] * 2
    assert read["tollgate_dead_letters_total"] == {("transactions", "unknown"): 2}
    assert read["tollgate_dead_letters_waiting"] == {("transactions", "unknown"): 2}


def test_dead_letters_have_a_bounded_number_of_series(bench: Bench) -> None:
    for number in range(MOST_FIELDS + 5):
        for copy in range(2 if number else 3):
            bench.put(
                "dead_letters",
                source="transactions",
                partition_id="0",
                event_offset=f"{number}.{copy}",
                reason="bad",
                field=f'field "{number:02}"' if number else None,
                body=b"x",
                received_at_us=1,
                replayed_at_us=2 if copy == 0 else None,
            )
    read = bench.read()
    total, waiting = read["tollgate_dead_letters_total"], read["tollgate_dead_letters_waiting"]
    assert len(total) == MOST_FIELDS + 1
    assert sum(total.values()) == 2 * (MOST_FIELDS + 5) + 1
    assert total["transactions", "event"] == 3
    assert total["transactions", "other"] == 10
    assert waiting["transactions", "other"] == 5


def put_letter(bench: Bench, offset: str, field: str | None, received_at_us: int) -> None:
    bench.put(
        "dead_letters",
        source="transactions",
        partition_id="0",
        event_offset=offset,
        reason="bad",
        field=field,
        body=b"x",
        received_at_us=received_at_us,
    )


def test_dead_letters_that_were_added_up_are_counted_once_and_stay_counted(bench: Bench) -> None:
    for number in range(6):
        put_letter(bench, f"old {number}", "amount" if number % 3 else None, NOW_US - SETTLED_US - 1)
    put_letter(bench, "young", "amount", NOW_US - SETTLED_US)
    # Its number is higher although it is older: it came from a process whose clock is behind.
    put_letter(bench, "late", "currency", NOW_US - SETTLED_US - 1)
    before = bench.read()
    assert before["tollgate_dead_letters_total"] == {
        ("transactions", "amount"): 5,
        ("transactions", "event"): 2,
        ("transactions", "currency"): 1,
    }
    assert bench.readings.fold(NOW_US) == 6, "what is young may have a neighbour that is not committed yet"
    assert bench.readings.fold(NOW_US) == 0
    assert bench.read() == before
    bench.connection.execute("DELETE FROM tollgate.dead_letters WHERE event_offset LIKE 'old %'")
    after = bench.read()
    assert after["tollgate_dead_letters_total"] == before["tollgate_dead_letters_total"], "a counter never falls"
    assert sum(after["tollgate_dead_letters_waiting"].values()) == 2
    assert bench.readings.fold(NOW_US + 1) == 2
    put_letter(bench, "new", "currency", NOW_US)
    assert bench.read()["tollgate_dead_letters_total"]["transactions", "currency"] == 2


def test_dead_letters_are_added_up_a_page_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_readings, "MOST_FOLDED", 4)
    for number in range(10):
        put_letter(bench, f"{number}", "amount", 1)
    assert [bench.readings.fold(NOW_US) for _ in range(4)] == [4, 4, 2, 0]
    assert bench.read()["tollgate_dead_letters_total"] == {("transactions", "amount"): 10}


def test_drift_and_triggers(bench: Bench) -> None:
    for hours, end, value in ((1, 0, 0.1), (1, 1, 0.2), (24, 1, 0.3), (1, 2, None)):
        bench.put(
            "drift_metrics",
            bundle_digest="a" * 64,
            subject="amount",
            statistic="psi" if value is not None else "ks",
            value=value,
            window_start_us=NOW_US + (end - hours) * HOUR_US,
            window_end_us=NOW_US + end * HOUR_US,
            reference_rows=1,
            current_rows=1,
            recorded_at_us=NOW_US,
        )
    for end, state in ((1, "quiet"), (2, "drift")):
        bench.put(
            "drift_metrics",
            bundle_digest="a" * 64,
            subject="all",
            statistic="verdict",
            value=end,
            window_start_us=NOW_US + (end - 1) * HOUR_US,
            window_end_us=NOW_US + end * HOUR_US,
            reference_rows=1,
            current_rows=1,
            details={"state": state},
            recorded_at_us=NOW_US,
        )
    bench.put("retraining_triggers", cause="feature drift", priority=1, created_at_us=1, subject="amount")
    bench.put("retraining_triggers", cause="feature drift", priority=1, created_at_us=1, status="done", closed_at_us=2)
    read = bench.read()
    assert read["tollgate_drift_statistic"] == {
        ("amount", "psi", "1"): 0.2,
        ("amount", "psi", "24"): 0.3,
        ("all", "verdict", "1"): 2,
    }
    assert read["tollgate_drift_alert"] == {(): 1}
    assert read["tollgate_retraining_triggers_open"]["feature drift",] == 1


def test_replays_of_all_hours_add_up_and_attempts_at_one_hour_count_once(bench: Bench) -> None:
    for run, task, equal, different in (
        ("replaying/100", "run", 7, 2),
        ("replaying/200", "run", 5, 1),
        ("replaying/200/2", "run", 5, 1),
        ("replaying/300", "another", 9, 9),
        ("replayings/100", "run", 9, 9),
        ("drift/100", "run", 9, 9),
    ):
        for metric, value in (("equal", equal), ("different", different), ("sampled", equal + different)):
            bench.put("task_metrics", run_id=run, task=task, metric=metric, value=value, recorded_at_us=1)
    assert bench.read()["tollgate_replays_total"] == {
        ("retrain", "equal"): 12,
        ("retrain", "different"): 3,
        ("retrain", "unchecked"): 0,
    }


def test_label_delay_is_from_the_transaction_to_when_it_was_known(bench: Bench) -> None:
    for number in range(100):
        name = f"t{number}"
        bench.put("transaction_ids", transaction_id=name, digest=bytes(32), event_time_us=NOW_US - 40 * DAY_US)
        bench.put(
            "feedback_labels",
            transaction_id=name,
            label_digest=bytes(32),
            verdict=1,
            source=1,
            event_time_us=NOW_US - 20 * DAY_US,
            known_at_us=NOW_US - 40 * DAY_US + (number + 1) * DAY_US // 10,
            confidence=100,
            author="a test",
            recorded_at_us=NOW_US,
        )
    delays = bench.read()["tollgate_label_delay_days"]
    assert delays["0.5",] == pytest.approx(5.05)
    assert delays["0.95",] == pytest.approx(9.505)


def test_quality_runs_gate_champion_performance_and_notices(bench: Bench) -> None:
    for window, passed in ((1, False), (2, True)):
        for rule, answer in (("volume", passed), ("amount", not passed)):
            bench.put(
                "data_quality_log",
                source="transactions",
                rule=rule,
                passed=answer,
                window_start_us=window,
                window_end_us=window + 1,
                recorded_at_us=NOW_US,
            )
    for run, status in (("1", "done"), ("2", "failed"), ("3", "running")):
        ended = None if status == "running" else NOW_US
        bench.put(
            "pipeline_execution_log",
            run_id=run,
            pipeline="drift",
            status=status,
            started_at_us=NOW_US - 60_000_000,
            ended_at_us=ended,
        )
    for digest, passed in (("a", True), ("b", False), ("c", False)):
        bench.put(
            "promotion_verdicts",
            verdict_digest=digest * 64,
            challenger_digest="x" * 64,
            passed=passed,
            document="{}",
            decided_at_us=1,
        )
    for number, (role, digest) in enumerate([("champion", "a"), ("champion", "b"), ("shadow", "c")], 1):
        bench.put(
            "promotions",
            role=role,
            number=number,
            bundle_digest=digest * 64,
            action="promote",
            author="a test",
            reason="a test",
            changed_at_us=NOW_US - number * 1_000_000,
        )
    for digest, segment, end, value in (("b", "all", 2, 0.7), ("b", "all", 1, 0.6), ("b", "hour:3", 2, 0.1)):
        bench.put(
            "performance_metrics",
            bundle_digest=digest * 64,
            segment=segment,
            metric="recall",
            value=value,
            n_rows=1,
            n_frauds=1,
            window_start_us=0,
            window_end_us=end,
            recorded_at_us=1,
        )
    bench.put("notifications", channel="mail", dedup_key="k", severity=1, title="t", created_at_us=1, next_at_us=1)
    read = bench.read()
    assert read["tollgate_quality_failed"] == {("transactions", "volume"): 0, ("transactions", "amount"): 1}
    assert read["tollgate_pipeline_runs_total"] == {("drift", "done"): 1, ("drift", "failed"): 1}
    assert read["tollgate_pipeline_last_done_age_seconds"] == {("drift",): 60}
    assert read["tollgate_gate_verdicts_total"] == {("passed",): 1, ("refused",): 2}
    assert read["tollgate_champion_present"] == {(): 1}
    assert read["tollgate_champion_age_seconds"] == {(): 2}
    assert read["tollgate_performance"] == {("recall",): 0.7}
    assert read["tollgate_notices"] == {("mail", "waiting"): 1}
    bench.put("promotions", role="champion", number=9, action="retire", author="a", reason="b", changed_at_us=NOW_US)
    read = bench.read()
    assert read["tollgate_champion_present"] == {(): 0}
    assert "tollgate_performance" not in read
