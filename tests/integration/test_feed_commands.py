"""Files and dead letters by command, against real servers, with the rights of the ingest app and no more."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import psycopg
import pytest
from azure.storage.blob import BlobServiceClient
from typer.testing import CliRunner

from shared.adapters.blob_bundles import BlobBundles
from shared.adapters.postgres_dead_letters import PostgresDeadLetters
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.adapters.system_clock import SystemClock
from shared.domain.bundle_pointer import Role as Part
from shared.domain.event import DeadLetter, StreamEvent
from shared.domain.instants import US_PER_DAY, format_instant
from shared.services.training_publication import publish
from tests.conftest import MigratedDatabase
from tests.fakes.bundles import golden_files
from twin.cli import app
from twin.services.app_settings import plain_settings

KEYS = "k1:" + base64.b64encode(bytes(range(32))).decode()
FIRST_US = 1_522_540_800_000_000
ROWS = 240
NO_CHANGE: Mapping[str, str | None] = MappingProxyType({})


def run(*arguments: str, code: int = 0, environment: Mapping[str, str | None] = NO_CHANGE) -> str:
    result = CliRunner(env={"DATABASE": None, "SURROGATE_KEYS": KEYS, "COLUMNS": "200", **environment}).invoke(
        app, list(arguments)
    )
    assert result.exit_code == code, result.output
    return result.output


def values(database: MigratedDatabase, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(database.dsn) as connection:
        return connection.execute(query.encode()).fetchall()


def history_file(folder: Path) -> Path:
    """A bank's own names, major units, two rows that break a rule."""
    lines = ["id,card,shop,eur,at,bad"]
    for number in range(ROWS):
        moment = format_instant(FIRST_US + number * US_PER_DAY // 6)
        lines.append(f"{number},{number % 7},{number % 5},{number + 1}.50,{moment},{int(number % 9 == 0)}")
    lines[20] = lines[20].replace(".50", ".505")
    lines[30] = lines[30].replace("2018", "2218")
    path = folder / "history.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


MAPPED = [
    part
    for pair in (
        "transaction_id=id",
        "customer_id=card",
        "terminal_id=shop",
        "amount=eur",
        "event_time=at",
        "fraud=bad",
    )
    for part in ("--map", pair)
]


def test_history_is_taken_once_with_the_rights_of_the_ingest_app(
    migrated_database: MigratedDatabase, tmp_path: Path
) -> None:
    file, rejects = history_file(tmp_path), tmp_path / "rejects.csv"
    options = [*MAPPED, "--prefix", "customer_id=c", "--labels-after", "7", "--batch", "50", "--rejects", str(rejects)]
    where = ("--database", migrated_database.role_dsn(Role.INGEST))
    told = run("import", str(file), *options, *where, code=2)
    assert "tollgate db partitions --from 2018-04-01 --to 2018-05-10" in told
    assert "SURROGATE_KEYS must be set" in run(
        "import", str(file), *options, *where, code=2, environment={"SURROGATE_KEYS": None}
    )
    assert f"{ROWS - 2} transactions" in run("import", str(file), *options, "--check", code=1)
    assert values(migrated_database, "SELECT count(*) FROM tollgate.transactions WHERE transaction_id = '7'") == [(0,)]
    told = run("import", str(file), *options, "--database", migrated_database.dsn, code=1)
    assert f"transactions: {ROWS - 2} imported" in told
    assert f"labels: {ROWS - 2} recorded" in told
    assert rejects.read_text(encoding="utf-8").splitlines() == [
        "row,field,rule",
        "20,amount,must not have more than 2 decimals",
        "30,event_time,must not lie more than 300 s in the future",
    ]
    again = run("import", str(file), *options, "--no-partitions", *where, code=1)
    assert f"transactions: {ROWS - 2} repeated" in again
    assert f"labels: {ROWS - 2} repeated" in again
    query = "SELECT customer_id, amount_minor, currency FROM tollgate.transactions WHERE transaction_id = '7'"
    assert values(migrated_database, query) == [("c0", 850, "EUR")]
    # No version is missing and none is there twice: events and labels of each customer count from 1 without a gap.
    gaps = """
    SELECT customer_id, count(*), max(version), count(DISTINCT version) FROM (
        SELECT customer_id, customer_version AS version FROM tollgate.transactions UNION ALL
        SELECT i.customer_id, l.customer_version FROM tollgate.feedback_labels l
        JOIN tollgate.transaction_ids i USING (transaction_id) WHERE l.customer_version IS NOT NULL
    ) AS versions GROUP BY customer_id HAVING count(*) <> max(version) OR count(*) <> count(DISTINCT version)"""
    assert values(migrated_database, gaps) == []
    query = "SELECT sum(version) FROM tollgate.customer_features WHERE customer_id LIKE 'c_'"
    assert values(migrated_database, query) == [(2 * (ROWS - 2),)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv"], "there is no file none.csv"),
        (["FILE"], "are not known; name them with --map"),
        (["FILE", "--map", "amount"], "wanted FIELD=VALUE"),
        (["FILE", "--map", "colour=id"], "colour is no field"),
        (["FILE", *MAPPED, "--prefix", "amount=x"], "only ids have prefixes"),
        (["FILE", *MAPPED, "--amount-unit", "cents"], "wanted major or minor"),
        (["FILE", *MAPPED, "--labels-after", "nan"], "--labels-after"),
        (["FILE", *MAPPED, "--labels-after", "inf"], "--labels-after"),
        (["FILE", *MAPPED, "--rejects", "none/rejects.csv"], "No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    file = str(history_file(tmp_path))
    told = run("import", *[file if part == "FILE" else part for part in arguments], code=2)
    assert message in told
    assert "Traceback" not in told


def label(identifier: str, **changed: object) -> dict[str, object]:
    moment = format_instant(FIRST_US + 100 * US_PER_DAY)
    return {
        "transaction_id": identifier,
        "verdict": "fraud",
        "source": "analyst",
        "event_time": moment,
        "known_at": moment,
        "confidence": 90,
        "author": "ann",
    } | changed


def test_labels_are_recorded_once_with_the_rights_of_the_ingest_app(
    migrated_database: MigratedDatabase, tmp_path: Path
) -> None:
    where = ("--database", migrated_database.role_dsn(Role.INGEST))
    file = tmp_path / "labels.jsonl"
    good = [label(f"unseen-{number}") for number in range(7)]
    file.write_text("\n".join(json.dumps(item) for item in [*good, good[0]]), encoding="utf-8")
    assert "labels: 1 repeated, 7 waiting; 0 rows refused" in run("labels", "import", str(file), "--batch", "3", *where)
    bad = [*good, label("unseen-9", confidence="sure")]
    file.write_text("\n".join(json.dumps(item) for item in bad), encoding="utf-8")
    told = run("labels", "import", str(file), *where, code=1)
    assert "row 8: confidence must be a whole number of percent" in told
    assert "labels: 7 repeated; 1 rows refused" in told
    file.write_text("\n", encoding="utf-8")
    assert "has no label" in run("labels", "import", str(file), *where, code=2)
    assert "none of .csv" in run("labels", "import", str(tmp_path), *where, code=2)


@pytest.fixture(scope="module")
def ingest_settings(migrated_database: MigratedDatabase, storage: str) -> dict[str, str]:
    """What the ingest app of this database is given, with a champion in storage."""
    with BlobServiceClient.from_connection_string(storage) as service:
        for name in ("models-feeds", "probes-feeds"):
            service.create_container(name)
        store = BlobBundles(service.get_container_client("models-feeds"))
        publish(store, golden_files(), Part.CHAMPION, clock=SystemClock(), author="tests", reason="replay")
    return {
        **plain_settings("ingest"),
        "AzureWebJobsStorage": storage,
        "DATA_STORAGE": storage,
        "EVENT_HUBS": "Endpoint=sb://localhost;SharedAccessKeyName=n;SharedAccessKey=k;UseDevelopmentEmulator=true",
        "DATABASE": migrated_database.role_dsn(Role.INGEST),
        "MODELS_CONTAINER": "models-feeds",
        "PROBES_CONTAINER": "probes-feeds",
    }


def test_dead_letters_are_listed_shown_and_handed_in_again(
    migrated_database: MigratedDatabase, ingest_settings: dict[str, str], tmp_path: Path
) -> None:
    now_us = SystemClock().now_us()
    card = "c-4111111111111111"

    def body(identifier: str, **changed: object) -> bytes:
        fields = {
            "type": "tollgate.transaction",
            "transaction_id": identifier,
            "customer_id": card,
            "terminal_id": "m-1",
            "amount_minor": 1250,
            "currency": "EUR",
            "event_time": format_instant(now_us - 60_000_000),
        }
        return json.dumps(fields | changed).encode()

    session = PostgresSession(migrated_database.role_connection(Role.INGEST), "test")
    kept = PostgresDeadLetters(session)
    given = [
        (body("r-1"), "", "could not be processed: KeyError"),
        (body("r-2", amount_minor="12"), "amount_minor", "must be a whole number of minor units"),
        (b"\x1b[2J\xff", "", "must be UTF-8; byte 4 is not"),
        (body("r-4"), "", "could not be processed: KeyError"),
    ]
    for place, (data, field, rule) in enumerate(given):
        event = StreamEvent("transactions", "0", place, str(place), now_us, data)
        kept.put(DeadLetter(event, field, rule, now_us))
    session.close()
    environment = ingest_settings
    first, second, third, fourth = (
        str(row[0])
        for row in values(migrated_database, "SELECT dead_letter_id FROM tollgate.dead_letters ORDER BY dead_letter_id")
    )
    listed = run("dead-letters", "list", environment=environment)
    assert "4 dead letters" in listed
    assert "transactions/0@1  amount_minor must be a whole number" in listed
    assert "there may be more: --after " + second in run("dead-letters", "list", "-n", "2", environment=environment)
    lines = run(
        "dead-letters", "list", "--json", "--reason", "KeyError", "--since", "2020-01-01", environment=environment
    )
    assert [json.loads(line)["id"] for line in lines.splitlines()] == [int(first), int(fourth)]
    shown = run("dead-letters", "show", second, environment=environment)
    assert "amount_minor" in shown
    assert card not in listed + lines + shown
    assert card in run("dead-letters", "show", second, "--body", environment=environment)
    binary = run("dead-letters", "show", third, "--body", environment=environment)
    assert base64.b64encode(b"\x1b[2J\xff").decode() in binary
    assert "\x1b[2J" not in binary
    assert "is no dead letter" in run("dead-letters", "show", "999999", environment=environment, code=2)

    told = run("dead-letters", "replay", first, second, environment=environment, code=1)
    assert f"{first} taken" in told
    assert f"{second} refused: amount_minor must be a whole number" in told
    mended = tmp_path / "mended.json"
    mended.write_bytes(body("r-2"))
    assert f"{second} taken" in run("dead-letters", "replay", second, "--body", str(mended), environment=environment)
    told = run("dead-letters", "replay", "--all", "--reason", "KeyError", environment=environment)
    assert told.splitlines()[-1] == "1 taken, 0 repeated, 0 refused"
    assert f"{third} refused: the input must be UTF-8" in run(
        "dead-letters", "replay", "--all", environment=environment, code=1
    )
    assert "1 dead letters" in run("dead-letters", "list", environment=environment)
    assert "4 dead letters" in run("dead-letters", "list", "--replayed", environment=environment)
    assert f"{first} repeated" in run("dead-letters", "replay", first, environment=environment)
    decided = values(migrated_database, "SELECT transaction_id FROM tollgate.predictions ORDER BY 1")
    assert decided == [("r-1",), ("r-2",), ("r-4",)]
    assert card not in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["replay"], "must be numbers of letters, or --all"),
        (["replay", "1", "--all"], "must be numbers of letters, or --all"),
        (["replay", "1", "--hub", "x"], "a selection goes with --all"),
        (["replay", "--all", "--body", "x"], "goes with the number of one letter"),
        (["replay", "one"], "must be the number of a dead letter"),
        (["show", "0"], "must be the number of a dead letter"),
        (["list", "--since", "yesterday"], "--since must be an RFC 3339 time"),
    ],
)
def test_what_makes_no_sense_is_told(arguments: list[str], message: str, ingest_settings: dict[str, str]) -> None:
    assert message in run("dead-letters", *arguments, environment=ingest_settings, code=2)


def test_a_database_that_is_not_there_is_one_line(
    ingest_settings: dict[str, str], migrated_database: MigratedDatabase
) -> None:
    nowhere = migrated_database.dsn.replace(f":{migrated_database.port}/", ":1/")
    told = run("dead-letters", "list", environment=ingest_settings | {"DATABASE": nowhere}, code=2)
    assert "listing dead letters: the database cannot do it now" in told
