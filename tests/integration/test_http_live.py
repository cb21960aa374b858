"""The score app as it is deployed: two worker processes, a real database, real storage, a real model."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psycopg
import pytest

from shared.domain.bundle_manifest import canonical_json
from tests.conftest import MigratedDatabase
from tests.fakes.bundles import golden_files
from tests.host.hosting import Answer, until
from tests.integration.score_app import PATIENT, Models, ScoreApp, fields, login, running, settings


@dataclass
class Live:
    """An app with a champion, and what is under it."""

    app: ScoreApp
    models: Models
    database: MigratedDatabase

    def count(self, query: str) -> int:
        with psycopg.connect(self.database.dsn) as connection:
            row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    def decided(self) -> float:
        """How many decisions all workers have counted."""
        lines = self.app.host.get("/api/metrics").body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("model_predictions_total{"))


@pytest.fixture(scope="module")
def live(storage: str, migrated_database: MigratedDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    models = Models(storage)
    asked = {**PATIENT, "CORS_ORIGINS": "https://console.example"}
    app_settings = settings(storage, login(migrated_database), models.name, **asked)
    with running(tmp_path_factory.mktemp("score"), app_settings) as app:
        app.serves(models.promote())
        yield Live(app, models, migrated_database)
    models.close()


def test_a_decision_is_durable_explained_and_looked_up(live: Live) -> None:
    sent = fields("looked/up by%20id?#1")
    answer = live.app.score(sent)
    assert answer.status == 400, "a space is no visible character"
    sent = fields("looked/up%20by?#1", amount_minor=900_000)
    answer = live.app.score(sent)
    assert answer.status == 200, answer.body
    stages = [part.split(";")[0].strip() for part in str(answer.header("server-timing")).split(",")]
    assert stages == ["queue", "claim", "features", "model", "record", "write", "total"]
    found = live.app.host.get("/api/decisions/looked%2Fup%2520by%3F%231")
    assert found.status == 200, found.body
    assert answer.json().items() <= found.json().items()
    assert len(found.json()["features"]) == 25
    replayed = live.app.host.get("/api/decisions/looked%2Fup%2520by%3F%231?replay=true").json()
    assert replayed.pop("replay") == {"verdict": "equal", "obstacle": "", "differences": []}
    assert replayed == found.json()
    assert live.app.host.get("/api/decisions/looked%2Fup%2520by%3F%231?replay=maybe").status == 400
    assert live.app.host.get("/api/decisions/nobody").status == 404
    assert live.app.host.get("/api/decisions/a%20b").status == 400


def test_a_repeat_gets_the_same_bytes_from_every_worker_and_after_a_swap(live: Live) -> None:
    sent = fields()
    first = live.app.score(sent)
    assert (first.status, first.header("idempotent-replayed")) == (200, None)
    champion = first.json()["model"]["digest"]
    live.models.point(None)
    other = live.models.promote(renamed(golden_files()))
    live.app.serves(other)
    repeats = [live.app.score(sent) for _ in range(20)]
    assert live.app.score(fields()).json()["model"]["digest"] == other != champion
    live.models.point(champion)
    live.app.serves(champion)
    assert {answer.body for answer in repeats} == {first.body}
    assert {answer.header("idempotent-replayed") for answer in repeats} == {"true"}


def renamed(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same model under another name, so under another digest."""
    manifest = json.loads(files["manifest.json"])
    manifest["name"] = "another"
    return {**files, "manifest.json": canonical_json(manifest)}


def test_every_transaction_has_one_decision_whoever_asks_how_often(live: Live) -> None:
    sent = [fields(customer_id=f"card-{number % 7}", terminal_id=f"m-{number % 3}") for number in range(60)]
    asked = sent * 3
    random.Random(7).shuffle(asked)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(live.app.score, asked))
    assert Counter(answer.status for answer in answers) == {200: 180}
    bodies: dict[str, set[bytes]] = {}
    for fields_sent, answer in zip(asked, answers, strict=True):
        bodies.setdefault(fields_sent["transaction_id"], set()).add(answer.body)
    assert all(len(found) == 1 for found in bodies.values())
    fresh = [answer for answer in answers if answer.header("idempotent-replayed") is None]
    assert len(fresh) == 60
    names = ",".join(f"'{name}'" for name in bodies)
    assert live.count(f"SELECT count(*) FROM tollgate.predictions WHERE transaction_id IN ({names})") == 60


def test_a_batch_of_a_thousand(live: Live) -> None:
    sent = [fields(customer_id=f"card-{number % 200}", terminal_id=f"m-{number % 50}") for number in range(1000)]
    answer = live.app.batch(sent)
    assert answer.status == 200, answer.body[:300]
    results = answer.json()["results"]
    assert Counter(result["status"] for result in results) == {200: 1000}
    assert [result["decision"]["transaction_id"] for result in results] == [item["transaction_id"] for item in sent]
    again = live.app.batch(sent).json()["results"]
    assert [result["decision"] for result in again] == [result["decision"] for result in results]
    assert all(result["replayed"] for result in again)
    assert live.app.batch([*sent, fields()]).status == 400


def test_a_conflict_changes_nothing(live: Live) -> None:
    sent = fields()
    first = live.app.score(sent)
    conflict = live.app.score({**sent, "amount_minor": 1})
    assert (conflict.status, conflict.json()["field"]) == (409, "transaction_id")
    assert live.app.score(sent).body == first.body


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{}", "text/plain", 415),
        (b"{", "application/json", 400),
        (json.dumps(fields(currency="CHF")).encode(), "application/json", 422),
        (b" " * ((1 << 20) + 1), "application/json", 413),
    ],
)
def test_refusals_are_problems(live: Live, body: bytes, content_type: str, status: int) -> None:
    answer = live.app.host.post("/api/score", body, content_type=content_type)
    assert answer.status == status
    assert answer.header("content-type") == "application/problem+json"
    assert answer.json()["status"] == status


def test_connections_that_the_server_closes_cost_no_request(live: Live) -> None:
    stored = fields()
    assert live.app.score(stored).status == 200
    path = f"/api/decisions/{stored['transaction_id']}"
    with psycopg.connect(login(live.database), autocommit=True, application_name="a test") as connection:
        for _ in range(3):
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE usename = current_user AND datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchall()
            assert ended
            assert [live.app.score(fields()).status for _ in range(4)] == [200] * 4
            assert [live.app.host.get(path).status for _ in range(4)] == [200] * 4


def test_clients_that_leave_do_no_harm(live: Live) -> None:
    before = live.decided()
    body = json.dumps(fields("left-behind")).encode()
    lines = ("POST /api/score HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}")
    head = "\r\n".join((*lines, "", ""))
    for _ in range(8):
        with socket.create_connection(("127.0.0.1", live.app.host.port)) as client:
            client.sendall(head.encode() + body)
    with socket.create_connection(("127.0.0.1", live.app.host.port)) as client:
        client.sendall(head.encode() + body[:20])  # and one in the middle of its body
    assert live.app.score(fields()).status == 200
    until(lambda: live.app.host.get("/api/decisions/left-behind").status == 200, "the decision")
    assert live.count("SELECT count(*) FROM tollgate.predictions WHERE transaction_id = 'left-behind'") == 1
    # A worker counts what is stored already, and nobody waits for this one's answer.
    until(lambda: live.decided() == before + 2, "the count of both decisions")


def test_metrics_tell_of_both_workers(live: Live) -> None:
    before = live.decided()
    threads = [threading.Thread(target=live.app.score, args=(fields(),)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {live.decided() for _ in range(8)} == {before + 16}


def test_preflights_are_answered_without_a_key(live: Live) -> None:
    def ask(origin: str) -> Answer:
        from tests.host.hosting import request

        headers = {"origin": origin, "access-control-request-method": "POST"}
        return request(live.app.host.port, "OPTIONS", "/api/score", headers=headers)

    assert ask("https://console.example").header("access-control-allow-origin") == "https://console.example"
    assert ask("https://evil.example").header("access-control-allow-origin") is None


def test_a_refused_bundle_leaves_the_last_good_one_serving(live: Live) -> None:
    before = live.app.host.get("/api/models").json()["serving"]["digest"]
    broken = dict(golden_files())
    broken["model.onnx"] = broken["model.onnx"][:-7] + b"garbage"
    digest = "ab" * 32
    for name, data in broken.items():
        live.models.container.upload_blob(f"bundles/{digest}/{name}", data)
    live.models.point(digest)
    problem = until(lambda: live.app.host.get("/api/models").json()["problem"], "the refusal")
    assert digest[:12] in problem
    answer = live.app.score(fields())
    assert (answer.status, answer.json()["model"]["digest"]) == (200, before)
    assert live.app.ready().status == 200
    live.models.point(before)
    until(lambda: not live.app.host.get("/api/models").json()["problem"], "no problem")


def test_the_page_needs_nothing_from_elsewhere(live: Live) -> None:
    page = live.app.host.get("/api/docs")
    assert page.status == 200
    assert b"http:" not in page.body
    assert b"https:" not in page.body
    assert b"<script" not in page.body
    described = live.app.host.get("/api/openapi.json").json()
    assert all(path in page.body.decode() for path in described["paths"])
