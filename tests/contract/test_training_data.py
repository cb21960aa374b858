"""History to learn from: the same answers from memory and from Postgres, as the retrain app's role."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import psycopg
import pytest

from shared.adapters import postgres_training_data
from shared.adapters.onnx_scorer import OnnxGraph
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.postgres_training_data import PostgresTrainingData
from shared.adapters.schema.grants import Role
from shared.adapters.xgboost_trainer import XgboostTrainer
from shared.domain.errors import BrokenInvariant, Transient
from shared.domain.feature_columns import LabelColumns, TransactionColumns, transform_many
from shared.domain.feature_view import CARD_V1
from shared.domain.instants import US_PER_DAY
from shared.domain.training_history import TrainingHistory
from shared.domain.training_model import TrainingParameters
from shared.ports.training_data import TrainingData
from shared.services.training import train
from tests.conftest import MigratedDatabase
from tests.fakes.bundles import START_US, history, plan_of
from tests.fakes.recorded_history import recorded, span_of, store
from tests.fakes.training_data import FakeTrainingData

DAY = US_PER_DAY
SMALL = recorded(*history(900, days=30), label_after_us=2 * DAY)
START, END = span_of(SMALL[0])


def emptied(
    database: MigratedDatabase,
    order: list[int] | None = None,
    columns: tuple[TransactionColumns, LabelColumns] = SMALL,
) -> None:
    """Leave nothing in the tables but a history."""
    transactions, labels = columns
    database.make_partitions(*span_of(transactions))
    with psycopg.connect(database.dsn) as connection:
        connection.execute("TRUNCATE tollgate.transactions, tollgate.feedback_labels")
        store(connection, transactions, labels, order)


@pytest.fixture(params=["fake", "postgres"])
def data(request: pytest.FixtureRequest) -> Iterator[TrainingData]:
    if request.param == "fake":
        yield FakeTrainingData(*SMALL)
        return
    database: MigratedDatabase = request.getfixturevalue("migrated_database")
    emptied(database)
    session = PostgresSession(database.role_connection(Role.RETRAIN), "test")
    yield PostgresTrainingData(session)
    session.close()


def comparable(found: TrainingHistory) -> list[tuple[object, ...]]:
    """Rows with their labels, in the order of their ids; entities by the ids of the rows that they share."""
    columns, labels = found.transactions, found.labels
    assert columns.customer_version is not None
    assert columns.terminal_version is not None
    assert labels.customer_version is not None
    assert labels.terminal_version is not None
    names = [key.decode() if isinstance(key, bytes) else str(key) for key in columns.transaction_id.tolist()]
    told: dict[int, list[tuple[int, ...]]] = {}
    parts = (labels.is_fraud, labels.known_at_us, labels.source, labels.confidence, labels.customer_version)
    for place, row in enumerate(labels.row.tolist()):
        told.setdefault(row, []).append(
            (*(int(part[place]) for part in parts), int(labels.terminal_version[place])),
        )
    keys = [np.unique(keys, return_inverse=True)[1] for keys in (columns.customer, columns.terminal)]
    numbers = (columns.event_time_us, columns.amount_minor, columns.customer_version, columns.terminal_version, *keys)
    return sorted(
        (name, *(int(part[row]) for part in numbers), tuple(sorted(told.get(row, []))))
        for row, name in enumerate(names)
    )


def test_history_comes_as_it_was_recorded(data: TrainingData) -> None:
    assert comparable(data.history(START, END)) == comparable(TrainingHistory(*SMALL))


def test_a_part_of_history_has_its_own_labels_only(data: TrainingData) -> None:
    start, end = START + 5 * DAY, START + 9 * DAY
    found = data.history(start, end)
    times = found.transactions.event_time_us
    assert start <= times.min() <= times.max() < end
    expected = (SMALL[0].event_time_us >= start) & (SMALL[0].event_time_us < end)
    assert len(times) == expected.sum()
    assert sorted(found.labels.row.tolist()) == list(range(len(times)))
    assert comparable(found) == comparable(FakeTrainingData(*SMALL).history(start, end))


def test_there_may_be_nothing(data: TrainingData) -> None:
    found = data.history(END + DAY, END + 2 * DAY)
    assert len(found.transactions.event_time_us) == len(found.labels.row) == 0
    assert transform_many(CARD_V1, found.transactions, found.labels).shape == (0, len(CARD_V1.features))
    assert data.newest_us(START) is None


def test_the_newest_labelled_transaction_is_found(data: TrainingData) -> None:
    times = SMALL[0].event_time_us
    assert data.newest_us(END + 4000 * DAY) == times.max()
    assert data.newest_us(START + 10 * DAY) == times[times < START + 10 * DAY].max()


def test_counting_stops_at_what_is_enough(data: TrainingData) -> None:
    assert data.count(START, END, 10_000) == 900
    assert data.count(START, END, 50) == 50
    assert data.count(END, END + DAY, 50) == 0


def test_a_history_of_many_parts_is_the_same_in_any_order_of_rows(
    migrated_database: MigratedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_training_data, "PART_ROWS", 64)
    emptied(migrated_database, np.random.default_rng(5).permutation(900).tolist())
    session = PostgresSession(migrated_database.role_connection(Role.RETRAIN), "test")
    found = PostgresTrainingData(session).history(START, END)
    session.close()
    assert comparable(found) == comparable(TrainingHistory(*SMALL))
    by_text = np.unique(SMALL[0].customer, return_inverse=True)[1]
    of_id = dict(zip(SMALL[0].transaction_id.tolist(), by_text.tolist(), strict=True))
    names = [key.decode() for key in found.transactions.transaction_id.tolist()]
    assert found.transactions.customer.tolist() == [of_id[name] for name in names], "numbers rise as keys do"


def test_labels_that_wait_or_belong_to_others_are_left_out(migrated_database: MigratedDatabase) -> None:
    emptied(migrated_database)
    with psycopg.connect(migrated_database.dsn) as connection:
        for number, (name, version) in enumerate(
            [("x000001", None), ("nobody", 3), ("x000002-and-a-longer-name", 3), ("x0000", 3)]
        ):
            connection.execute(
                "INSERT INTO tollgate.feedback_labels VALUES (%s, %s, 0, 4, %s, %s, 100, 'test', %s, %s, %s)",
                [name, number.to_bytes(32, "little"), END, END, END, version, version],
            )
    session = PostgresSession(migrated_database.role_connection(Role.RETRAIN), "test")
    found = PostgresTrainingData(session).history(START, END)
    session.close()
    assert comparable(found) == comparable(TrainingHistory(*SMALL))


def test_the_same_history_gives_the_same_digest_from_the_database_as_from_memory(
    migrated_database: MigratedDatabase,
) -> None:
    columns = recorded(*history(12_000), label_after_us=DAY)
    start, end = span_of(columns[0])
    emptied(migrated_database, np.random.default_rng(6).permutation(12_000).tolist(), columns)
    session = PostgresSession(migrated_database.role_connection(Role.RETRAIN), "test")
    found = PostgresTrainingData(session).history(start, end)
    session.close()
    assert _digest(found.transactions, found.labels) == _digest(*columns)


def _digest(transactions: TransactionColumns, labels: LabelColumns) -> str:
    return train(
        CARD_V1,
        transactions,
        labels,
        replace(plan_of(transactions), as_of_us=START_US + 90 * DAY),
        trainer=XgboostTrainer(),
        load_graph=OnnxGraph,
        name="drawn",
        version=1,
        parameters=TrainingParameters(n_trees=5, max_bins=256),
    ).digest


def test_rows_of_another_length_are_refused(
    migrated_database: MigratedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied(migrated_database)
    cut = postgres_training_data._TRANSACTIONS.replace("rpad(customer_id, %s)", "left(customer_id, %s - 1)")
    monkeypatch.setattr(postgres_training_data, "_TRANSACTIONS", cut)
    session = PostgresSession(migrated_database.role_connection(Role.RETRAIN), "test")
    with pytest.raises(BrokenInvariant, match="history cannot be read"):
        PostgresTrainingData(session).history(START, END)
    session.close()


def test_a_database_that_is_not_there_is_a_passing_fault(migrated_database: MigratedDatabase) -> None:
    gone = PostgresTrainingData(PostgresSession(replace(migrated_database, port=1).connection, "test"))
    with pytest.raises(Transient, match="reading history"):
        gone.history(START, END)
    with pytest.raises(Transient, match="counting transactions"):
        gone.count(START, END, 1)
    with pytest.raises(Transient, match="looking for the newest label"):
        gone.newest_us(END)
