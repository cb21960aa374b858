"""What the score app does while its surroundings fail: the right status, nothing half-written, no restart needed."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tests.conftest import MigratedDatabase, free_ports
from tests.host.hosting import until
from tests.integration.relay import Relay, relay
from tests.integration.score_app import PATIENT, Models, ScoreApp, fields, login, running, settings


@pytest.fixture
def database_relay(migrated_database: MigratedDatabase) -> Iterator[Relay]:
    with relay(migrated_database.port) as made:
        yield made


@pytest.fixture
def models(storage: str) -> Iterator[Models]:
    made = Models(storage)
    yield made
    made.close()


def relayed(storage: str, port: int) -> str:
    """The storage connection by way of another port."""
    return ";".join(
        f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1" if part.startswith("BlobEndpoint=") else part
        for part in storage.split(";")
    )


def blob_port(storage: str) -> int:
    endpoint = next(part for part in storage.split(";") if part.startswith("BlobEndpoint="))
    return int(endpoint.split(":")[2].split("/")[0])


def stored(database: MigratedDatabase, *names: str) -> Counter[str]:
    """How many rows each id has in every table that a decision writes."""
    tables = ("transaction_ids", "transactions", "predictions", "outbox")
    found: Counter[str] = Counter()
    with psycopg.connect(database.dsn) as connection:
        for table in tables:
            query = f"SELECT count(*) FROM tollgate.{table} WHERE transaction_id = ANY(%s)"
            row = connection.execute(query, [list(names)]).fetchone()
            found[table] = row[0] if row else 0
    return found


def one_each(count: int) -> Counter[str]:
    return Counter(dict.fromkeys(("transaction_ids", "transactions", "predictions", "outbox"), count))


def comes_alive(app: ScoreApp) -> None:
    until(lambda: app.score(fields()).status == 200, "a decision")


def test_without_a_champion_it_says_so_and_comes_alive_without_a_restart(
    storage: str, migrated_database: MigratedDatabase, models: Models, tmp_path: Path
) -> None:
    with running(tmp_path / "app", settings(storage, login(migrated_database), models.name, **PATIENT)) as app:
        answer = app.ready()
        assert answer.status == 503
        assert answer.json()["detail"] == "not ready: champion"
        sent = fields()
        refused = app.score(sent)
        assert (refused.status, refused.header("retry-after")) == (503, "1")
        assert stored(migrated_database, sent["transaction_id"]) == one_each(0)
        app.serves(models.promote())
        assert app.ready().status == 200
        assert app.score(sent).status == 200
        assert stored(migrated_database, sent["transaction_id"]) == one_each(1)


def test_the_database_goes_away_and_comes_back(
    storage: str, migrated_database: MigratedDatabase, database_relay: Relay, models: Models, tmp_path: Path
) -> None:
    models.promote()
    dsn = login(migrated_database, database_relay.port)
    app_settings = settings(
        storage, dsn, models.name, FUNCTIONS_WORKER_PROCESS_COUNT="1", SCORE_DEADLINE_MS="1500", QUEUE_LIMIT="8",
        BATCH_LIMIT="8",
    )  # fmt: skip
    with running(tmp_path / "app", app_settings) as app:
        comes_alive(app)

        # Gone: told within the deadline, and again ready when it is back.
        database_relay.cut()
        lost = fields()
        answer = app.score(lost)
        assert (answer.status, answer.header("retry-after")) == (503, "1")
        assert answer.header("content-type") == "application/problem+json"
        ready = app.ready()
        assert (ready.status, ready.json()["detail"]) == (503, "not ready: database")
        assert stored(migrated_database, lost["transaction_id"]) == one_each(0)
        database_relay.mend()
        assert app.score(lost).status == 200
        assert stored(migrated_database, lost["transaction_id"]) == one_each(1)

        # Stalled in the middle of units of work: the deadline holds, the queue fills and refuses at once.
        database_relay.stall()
        sent = [fields() for _ in range(30)]
        with ThreadPoolExecutor(30) as pool:
            answers = list(pool.map(app.score, sent))
        assert {answer.status for answer in answers} == {503}
        refused = [answer for answer in answers if answer.header("retry-after") == "2"]
        assert refused, "those that found the queue full are told to wait for the deadline"
        database_relay.mend()
        comes_alive(app)

        # Whatever became of them, sending them again gives each exactly one decision.
        bodies = [until(lambda item=item: _decided(app, item), "a decision") for item in sent]  # type: ignore[misc]
        assert len(bodies) == 30
        assert stored(migrated_database, *(item["transaction_id"] for item in sent)) == one_each(30)


def _decided(app: ScoreApp, item: dict[str, object]) -> bytes | None:
    answer = app.score(item)
    return answer.body if answer.status == 200 else None


def test_storage_down_at_the_start_and_later(
    storage: str, migrated_database: MigratedDatabase, models: Models, tmp_path: Path
) -> None:
    digest = models.promote()
    with relay(blob_port(storage)) as blobs:
        blobs.cut()
        app_settings = settings(storage, login(migrated_database), models.name, FUNCTIONS_WORKER_PROCESS_COUNT="1")
        app_settings["DATA_STORAGE"] = relayed(storage, blobs.port)
        with running(tmp_path / "app", app_settings) as app:
            assert app.score(fields()).status == 503
            ready = app.ready()
            assert (ready.status, ready.json()["detail"]) == (503, "not ready: champion")
            assert app.host.get("/api/models").json()["serving"] is None
            assert app.host.get("/api/health/live").status == 200
            blobs.mend()
            comes_alive(app)
            assert app.ready().status == 200
            # From now on storage is not needed to decide; what is the matter is told.
            blobs.cut()
            until(lambda: app.host.get("/api/models").json()["problem"], "the problem")
            assert app.score(fields()).status == 200
            assert app.host.get("/api/models").json()["serving"]["digest"] == digest
            assert app.ready().status == 200


def test_the_app_starts_before_its_database(
    storage: str, migrated_database: MigratedDatabase, models: Models, tmp_path: Path
) -> None:
    models.promote()
    (port,) = free_ports(1)
    dsn = login(migrated_database, port)
    with running(tmp_path / "app", settings(storage, dsn, models.name, FUNCTIONS_WORKER_PROCESS_COUNT="1")) as app:
        assert app.score(fields()).status == 503
        assert app.ready().status == 503
        assert app.host.get("/api/decisions/x").status == 503


def test_reload_takes_a_champion_up_at_once_and_keys_are_kept(
    storage: str, migrated_database: MigratedDatabase, models: Models, tmp_path: Path
) -> None:
    changes = {**PATIENT, "FUNCTIONS_WORKER_PROCESS_COUNT": "1", "CHAMPION_POLL_S": "3600"}
    app_settings = settings(storage, login(migrated_database), models.name, **changes)
    options = {"enforce_keys": True, "keys_file": str(tmp_path / "keys.json")}
    with running(tmp_path / "app", app_settings, **options) as app:
        keys = app.host.admin
        assert app.host.get("/api/health/ready").status == 503
        assert app.host.post("/api/manage/reload").status == 401
        assert app.host.get("/api/metrics").status == 401
        assert app.host.get("/api/docs").status == 200
        until(lambda: "no bundle" in app.host.get("/api/manage/status", **keys).json()["problem"], "the first look")
        digest = models.promote()
        reloaded = app.host.post("/api/manage/reload", b"", **keys).json()
        assert (reloaded["model"]["digest"], reloaded["problem"]) == (digest, "")
        assert app.score(fields()).status == 401
        assert app.score(fields(), **keys).status == 200
        # The key that callers have does not open what names people.
        kept = json.loads((tmp_path / "keys.json").read_text())["hostKeys"]
        callers = {"x_functions_key": next(iter(kept.values()))}
        assert "by" not in app.host.get("/api/models", **callers).json()["roles"][0]
        assert app.host.get("/api/manage/roles", **callers).status == 401
        assert app.host.get("/api/manage/roles", **keys).json()["roles"][0]["digest"] == digest


def test_a_swap_under_load_fails_no_request(
    storage: str, migrated_database: MigratedDatabase, models: Models, tmp_path: Path
) -> None:
    from tests.fakes.bundles import golden_files
    from tests.integration.test_http_live import renamed

    first, second = models.promote(), models.store.put(renamed(golden_files()))
    stop = threading.Event()
    answers: list[tuple[int, str]] = []

    def load(number: int) -> None:
        while not stop.is_set():
            answer = app.score(fields(customer_id=f"card-{number}"))
            answers.append((answer.status, answer.json().get("model", {}).get("digest", "")))

    with running(tmp_path / "app", settings(storage, login(migrated_database), models.name, **PATIENT)) as app:
        app.serves(first)
        threads = [threading.Thread(target=load, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        try:
            for digest in (second, first, second, first):
                models.point(digest)
                until(lambda wanted=digest: answers and answers[-1][1] == wanted, "the swap")  # type: ignore[misc]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert {status for status, _ in answers} == {200}
    assert {digest for _, digest in answers} == {first, second}
