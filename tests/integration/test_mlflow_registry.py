"""Records on their way to a real MLflow server, with its tables in Postgres and its files in Azurite.

One server for the module, so tests count nothing but what they wrote themselves.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
from azure.storage.blob import BlobServiceClient

from shared.adapters.blob_bundles import BlobBundles
from shared.adapters.mlflow_registry import BUNDLE_TAG, EXPERIMENT, RUN_TAG, MlflowRegistry
from shared.adapters.postgres import parse_postgres
from shared.adapters.system_clock import SystemClock
from shared.bootstrap.retrain_registry import measured_row_store, registry_parts, run_records
from shared.domain.bundle_manifest import MANIFEST
from shared.domain.bundle_pointer import Pointer, Role
from shared.domain.errors import BrokenInvariant, NotFound, Transient
from shared.domain.pipeline import Evidence
from shared.domain.registry import RegistryRecord
from tests.conftest import twin_settings
from tests.fakes.bundles import golden_files
from tests.unit.shared.test_model_plots import drawn_from
from tests.unit.shared.test_registry_records import DIGEST, RUN
from twin.services.azurite import azurite_service
from twin.services.mlflow import mlflow_service, tracking_uri, use
from twin.services.orchestra import bring_up, take_down
from twin.services.postgres import postgres_service
from twin.services.processes import Records
from twin.services.settings import TwinSettings, login_of

pytestmark = pytest.mark.slow

PLOTS = {"calibration.png", "cost.png", "precision_recall.png", "reasons.png", "roc.png"}


@dataclass(frozen=True, slots=True)
class Scene:
    """A server, and what brings records to it."""

    settings: TwinSettings
    records: Records
    storage: BlobServiceClient

    @property
    def uri(self) -> str:
        return tracking_uri(self.settings)

    def bring(self, *given: RegistryRecord) -> Evidence:
        """Queue records, and let the timer's use case write what is due."""
        where = parse_postgres("DATABASE", {"DATABASE": self.settings.database_dsn(login_of("retrain"))})
        with run_records(where, SystemClock(), self.uri, "test") as queue:
            for record in given:
                assert queue.enqueue(record)
        parts = registry_parts(self.storage, "models", where, SystemClock(), self.uri)
        assert parts is not None
        return parts.write()

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        with closing(psycopg.connect(self.settings.database_dsn(), autocommit=True)) as connection:
            found = connection.execute(statement.encode())
            return found.fetchall() if found.description else []

    @contextmanager
    def without_server(self) -> Iterator[None]:
        self.records.stop("mlflow")
        yield
        bring_up([[mlflow_service(self.settings)]], self.records, lambda *_: None, timeout_s=90)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    settings = twin_settings(tmp_path_factory.mktemp("mlflow"))
    records = Records(settings.root / "run")
    layers = [[postgres_service(settings), azurite_service(settings)], [mlflow_service(settings)]]
    bring_up(layers, records, lambda *_: None, timeout_s=90)
    with BlobServiceClient.from_connection_string(settings.storage_connection(), retry_total=0) as storage:
        BlobBundles(storage.get_container_client("models")).put(golden_files())
        measured_row_store(storage, "models").put(DIGEST, drawn_from()[1])
        yield Scene(settings, records, storage)
    take_down(layers, records, lambda *_: None)


def run_of(scene: Scene, run_id: str) -> dict[str, object]:
    """What the server says of a run: there must be exactly one."""
    client = MlflowRegistry(scene.uri)._client
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.`{RUN_TAG}` = '{run_id}'")
    assert len(found) == 1
    return {
        "id": found[0].info.run_id,
        "status": found[0].info.status,
        "metrics": found[0].data.metrics,
        "params": found[0].data.params,
        "tags": found[0].data.tags,
        "plots": {Path(file.path).name for file in client.list_artifacts(found[0].info.run_id, "plots")},
    }


def downloaded(scene: Scene, uri: str, folder: Path) -> dict[str, bytes]:
    import mlflow

    mlflow.set_tracking_uri(scene.uri)
    target = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
    return {file.name: file.read_bytes() for file in target.iterdir()}


def test_a_run_is_recorded_with_figures_pictures_and_bundle(scene: Scene, tmp_path: Path) -> None:
    record = replace(RUN, run_id="retrain/100")
    assert scene.bring(record) == {"written": 1, "put_off": 0, "waiting": 0}
    run = run_of(scene, record.run_id)
    assert run["status"] == "FINISHED"
    assert run["plots"] == PLOTS
    expected = {
        name: value
        for metric in record.metrics
        for name, value in (
            (metric.name, metric.value),
            (f"{metric.name}_low", metric.low),
            (f"{metric.name}_high", metric.high),
        )
    }
    assert run["metrics"] == expected
    params, tags = run["params"], run["tags"]
    assert isinstance(params, dict)
    assert isinstance(tags, dict)
    assert params["view"] == record.view
    assert params["test_rows"] == str(record.spans["test"].n_rows)
    assert params["train_from"].endswith("Z")
    assert {name: params[name] for name in record.parameters} == {
        name: str(value) for name, value in record.parameters.items()
    }
    assert tags[BUNDLE_TAG] == DIGEST
    assert (tags["tollgate.data"], tags["tollgate.verdict"]) == (record.data_digest, record.verdict_digest)
    assert tags["tollgate.outcome"] == "refused: recall floor"
    files = downloaded(scene, f"runs:/{run['id']}/bundle", tmp_path)
    assert files == golden_files()
    assert hashlib.sha256(files[MANIFEST]).hexdigest() == DIGEST


def test_a_record_that_comes_twice_is_one_run_and_one_version(scene: Scene) -> None:
    record = replace(RUN, run_id="retrain/200")
    registry = MlflowRegistry(scene.uri)
    registry.write(record, golden_files(), {})
    registry.write(record, golden_files(), {})
    assert registry.has(record)
    run = run_of(scene, record.run_id)
    assert len(registry._client.search_model_versions(f"run_id = '{run['id']}'")) == 1
    assert scene.bring(record)["written"] == 1
    assert run_of(scene, record.run_id) == run


def test_two_trainings_are_two_runs(scene: Scene) -> None:
    first, second = replace(RUN, run_id="retrain/301"), replace(RUN, run_id="retrain/302", outcome="")
    for record in (first, second):
        MlflowRegistry(scene.uri).write(record, golden_files(), {})
    assert run_of(scene, first.run_id)["id"] != run_of(scene, second.run_id)["id"]


def test_an_alias_follows_its_role_and_an_old_state_moves_nothing(scene: Scene, tmp_path: Path) -> None:
    client = MlflowRegistry(scene.uri)._client
    scene.bring(replace(RUN, run_id="retrain/400"))

    def aliases() -> set[str]:
        return set(client.get_registered_model(RUN.name).aliases)

    champion = Pointer(Role.CHAMPION, DIGEST, 7, 1_700_000_000_000_000, "ada", "better by .03")
    shadow = replace(champion, role=Role.SHADOW)
    assert scene.bring(champion, shadow)["written"] == 2
    assert {"champion", "shadow"} <= aliases()
    assert downloaded(scene, f"models:/{RUN.name}@champion", tmp_path) == golden_files()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    assert experiment.tags["tollgate.champion.000007"] == f"{DIGEST}; ada, 2023-11-14T22:13:20.000000Z: better by .03"
    assert scene.bring(replace(shadow, number=8, digest=None), replace(champion, number=3, digest=None))["written"] == 2
    assert "shadow" not in aliases()
    assert "champion" in aliases(), "number 3 is older than 7"
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    assert experiment.tags["tollgate.champion.000003"].startswith("nobody; ada, ")


def test_a_bundle_without_a_record_gets_a_run_and_a_late_record_takes_it_over(scene: Scene) -> None:
    name = "unrecorded"
    registry = MlflowRegistry(scene.uri)
    other = replace(RUN, run_id="retrain/500", name=name, bundle_digest="cd" * 32)
    with pytest.raises(NotFound):
        registry.give(Pointer(Role.CHALLENGER, other.bundle_digest, 1, 9, "ada", "new"))
    made_up = replace(other, run_id=f"bundle/{other.bundle_digest}", outcome="")
    assert not registry.has(made_up)
    registry.write(made_up, {"manifest.json": b"{}"}, {})
    assert registry.has(made_up)
    assert not registry.has(other)
    run = run_of(scene, made_up.run_id)
    registry.write(other, {"manifest.json": b"{}"}, {})
    assert registry.has(other)
    assert registry.has(made_up)
    assert run_of(scene, other.run_id)["id"] == run["id"]
    registry.give(Pointer(Role.CHALLENGER, other.bundle_digest, 1, 9, "ada", "new"))
    registry.write(replace(RUN, run_id="retrain/501"), golden_files(), {})
    registry.give(Pointer(Role.CHALLENGER, DIGEST, 2, 9, "ada", "newer"))
    assert "challenger" not in registry._client.get_registered_model(name).aliases


def test_what_waited_while_the_server_was_down_is_written_when_it_is_up(scene: Scene) -> None:
    record = replace(RUN, run_id="retrain/600")
    with scene.without_server():
        assert scene.bring(record) == {"written": 0, "put_off": 1, "waiting": 1}
        assert scene.bring() == {"written": 0, "put_off": 0, "waiting": 1}, "it is not its turn yet"
        rows = scene.sql("SELECT run_id, attempts, error FROM tollgate.registry_outbox")
        assert [row[:2] for row in rows] == [("retrain/600", 1)]
        assert "looking for a run" in str(rows[0][2])
        with pytest.raises(Transient):
            MlflowRegistry(scene.uri).has(record)
    scene.sql("UPDATE tollgate.registry_outbox SET next_at_us = 0")
    assert scene.bring() == {"written": 1, "put_off": 0, "waiting": 0}
    assert run_of(scene, record.run_id)["status"] == "FINISHED"


def test_what_the_server_refuses_is_no_passing_fault(scene: Scene) -> None:
    record = replace(RUN, run_id="retrain/700", name="no/model:name")
    with pytest.raises(BrokenInvariant, match="writing a run: the registry answered 4"):
        MlflowRegistry(scene.uri).write(record, golden_files(), {})


def test_the_server_answers_to_its_own_names_only(scene: Scene) -> None:
    assert "a file was sent, fetched and deleted" in use(scene.settings)
    request = urllib.request.Request(f"{scene.uri}/api/2.0/mlflow/experiments/search?max_results=1")
    request.add_header("Host", "rebound.example")
    with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(request, timeout=10):
        pass
    refused.value.close()
    assert refused.value.code == 403


def test_the_server_sends_no_reports_of_use(scene: Scene) -> None:
    with urllib.request.urlopen(f"{scene.uri}/ajax-api/3.0/mlflow/ui-telemetry", timeout=10) as answer:
        told = json.load(answer)
    assert told["disable_ui_telemetry"] is True


WITHOUT_THE_SERVER = """
import json, sys

MISSING = {"alembic", "docker", "flask", "graphene", "gunicorn", "huey", "pyarrow", "sqlalchemy", "skops"}

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in MISSING or name.startswith("mlflow.server")
        return None if hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
from shared.adapters.mlflow_registry import MlflowRegistry
before = "mlflow" in sys.modules
from tests.fakes.bundles import golden_files
from tests.unit.shared.test_registry_records import RUN
from dataclasses import replace
registry = MlflowRegistry(sys.argv[1])
record = replace(RUN, run_id="retrain/900")
registry.write(record, golden_files(), {})
print(json.dumps([before, registry.has(record), sorted(MISSING & {name.split(".")[0] for name in sys.modules})]))
"""


def test_a_record_is_written_with_the_client_alone(scene: Scene) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_SERVER, scene.uri],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [False, True, []], "loaded at start, written, loaded of the server's libraries"
