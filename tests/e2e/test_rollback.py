"""A release goes out and is taken back, on one twin: one state folder, one database, two releases' packages.

The next release is made from a copy of this checkout's sources: it needs one more migration, which only adds, and says
in its answers that it is the next one. All four apps run; the platform under them is the twin's.

Packages are built of the apps that decide. Those of drift and retrain hold four times as much, in up to 47,000 files:
with them, both releases took more than seven minutes and 4 GB on a busy machine, over this module's limit, in place of
one. These two run the release's own code, alone like in a package, over the checkout's libraries; that each imports
from its package is checked whenever one is built.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final

import psutil
import psycopg
import pytest
from azure.eventhub import EventData, EventHubProducerClient
from azure.storage.blob import BlobServiceClient

from shared.adapters.blob_bundles import BlobBundles
from shared.adapters.postgres_readiness import REVISION
from shared.adapters.system_clock import SystemClock
from shared.domain.bundle_pointer import Role
from shared.domain.instants import format_instant
from shared.domain.transaction import TRANSACTION_TYPE
from shared.services.training_publication import publish
from tests.e2e.conftest import ROOT, Twin
from tests.fakes.bundles import golden_files
from tests.host.hosting import request
from twin.packaging import build, unpack
from twin.services.apps import Code
from twin.services.journey import get
from twin.services.modes import Mode
from twin.services.orchestra import bring_up, take_down
from twin.services.plan import Layers, plan
from twin.services.processes import Records
from twin.services.settings import APPS, HOST, TwinSettings

# Four packages and three starts of four apps: above the usual limit on a machine that does other things.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(720)]

PACKAGED: Final = ("score", "ingest")
NEXT_REVISION: Final = f"{int(REVISION) + 1:04}"
NEXT_VERSION: Final = "99.0.0"
N_DECISIONS: Final = 12
N_EVENTS: Final = 20
N_MOST_MEANWHILE: Final = 2_000
"""More decisions than one process asks for while a migration runs; a bound, not a load."""

MIGRATION: Final = f'''"""Revision {NEXT_REVISION}: a column that the next release may fill."""

from __future__ import annotations

from typing import Final

from alembic import op

revision: Final = "{NEXT_REVISION}"
down_revision: Final = "{REVISION}"


def upgrade() -> None:
    """Add the column to the busiest of the partitioned tables, without queueing before deciding for long."""
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute("ALTER TABLE tollgate.predictions ADD COLUMN rehearsal text")


def downgrade() -> None:
    """Drop it."""
    op.execute("ALTER TABLE tollgate.predictions DROP COLUMN rehearsal")
'''

type Answers = dict[str, tuple[Mapping[str, object], bytes]]
"""By transaction id: what was asked, and the bytes of the answer."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release's sources, and its apps laid out as they are run."""

    sources: Path
    code: Mapping[str, Code]

    def tollgate(self, twin: Twin, *arguments: str, code: int = 0) -> str:
        """Run the release's own command against the twin; `code` is the exit code it must have."""
        done = subprocess.run(
            [sys.executable, "-m", "twin.cli", *arguments],
            cwd=self.sources,
            env=twin.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def prepare_database(self, twin: Twin) -> str:
        """What a deployment does before it publishes a package, in its order; returns what migrating printed."""
        printed = self.tollgate(twin, "db", "upgrade")
        self.tollgate(twin, "db", "grants")
        self.tollgate(twin, "db", "partitions")
        return printed

    def layers(self, settings: TwinSettings) -> Layers:
        """The twin's services, with this release's apps."""
        return plan(settings, Mode(packages=True), dict(self.code)).layers


def copied(target: Path) -> Path:
    """A copy of the sources that packages and commands are made of."""
    for folder in ("shared", "twin", "functions", "simulator", "requirements"):
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    shutil.copyfile(ROOT / "pyproject.toml", target / "pyproject.toml")
    return target


def replace_once(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path.name} does not have {old!r} exactly once"
    path.write_text(text.replace(old, new), encoding="utf-8")


def make_next(sources: Path) -> Path:
    """Turn a copy into the next release."""
    shared = sources / "shared"
    versions = shared / "adapters" / "schema" / "versions"
    (versions / f"r{NEXT_REVISION}_rehearsal.py").write_text(MIGRATION, encoding="utf-8")
    readiness = shared / "adapters" / "postgres_readiness.py"
    replace_once(readiness, f'REVISION: Final = "{REVISION}"', f'REVISION: Final = "{NEXT_REVISION}"')
    live = '{"status": "live"}'
    replace_once(shared / "entrypoints" / "http_health.py", live, f'{{"status": "live", "release": "{NEXT_VERSION}"}}')
    project = sources / "pyproject.toml"
    own = next(line for line in project.read_text(encoding="utf-8").splitlines() if line.startswith("version = "))
    replace_once(project, f"\n{own}\n", f'\nversion = "{NEXT_VERSION}"\n')
    return sources


def packaged(sources: Path) -> Release:
    """Build and unpack the apps that decide, with libraries from the checkout's cache, and lay the others out."""
    code = {app: laid_out(sources, app) for app in APPS if app not in PACKAGED}
    for app in PACKAGED:
        package = build(app, sources / "build", root=sources, cache_dir=ROOT / "build" / "packages" / ".cache")
        folder = sources / "unpacked" / app
        unpack(package.path, folder, expected_sha256=package.manifest.sha256)
        code[app] = Code(folder, folder / ".python_packages" / "lib" / "site-packages")
    return Release(sources, code)


def laid_out(sources: Path, app: str) -> Code:
    """An app's own code as in a package, over links to the checkout's libraries: `shared` can only be the release's."""
    site = sources / "unpacked" / app / "site-packages"
    site.mkdir(parents=True)
    for library in Path(sysconfig.get_path("purelib")).iterdir():
        (site / library.name).symlink_to(library)
    (site / "shared").symlink_to(sources / "shared")
    return Code(sources / "functions" / app, site)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, Release]:
    """This release and the next one."""
    folder = tmp_path_factory.mktemp("releases")
    sources = [copied(folder / "this"), make_next(copied(folder / "next"))]
    with ThreadPoolExecutor(max_workers=2) as pool:
        this, following = pool.map(packaged, sources)
    return this, following


def url(twin: Twin, path: str, app: str = "score") -> str:
    return f"http://127.0.0.1:{twin.settings.port_of(app)}/api/{path}"


def transaction(transaction_id: str, number: int) -> dict[str, object]:
    return {
        "transaction_id": transaction_id,
        "customer_id": f"card-{number % 5}",
        "terminal_id": f"shop-{number % 3}",
        "amount_minor": 1000 + number,
        "currency": "EUR",
        "event_time": format_instant(time.time_ns() // 1000),
    }


def post(twin: Twin, fields: Mapping[str, object]) -> bytes:
    """Have a transaction decided; the bytes of the answer."""
    request = urllib.request.Request(
        url(twin, "score"), json.dumps(fields).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read()
            assert answer.status == 200, body
            return bytes(body)
    except urllib.error.HTTPError as error:
        with error:
            pytest.fail(f"{fields['transaction_id']}: {error.code} {error.read()!r}\n{twin.logs()}")


def decided(twin: Twin, epoch: str) -> Answers:
    """Decide some transactions over HTTP."""
    asked = [transaction(f"{epoch}-{number:03}", number) for number in range(N_DECISIONS)]
    return {str(fields["transaction_id"]): (fields, post(twin, fields)) for fields in asked}


def differing(twin: Twin, answers: Answers) -> list[str]:
    """The transactions whose repeat is not answered with the bytes of before."""
    return [name for name, (fields, before) in answers.items() if post(twin, fields) != before]


def count(twin: Twin, query: str) -> int:
    with psycopg.connect(twin.settings.database_dsn()) as connection:
        row = connection.execute(query.encode()).fetchone()
    return int(row[0]) if row else 0


def failed_runs(twin: Twin) -> list[tuple[str, str]]:
    """Timers whose work failed, and why: those of either release, on either schema."""
    with psycopg.connect(twin.settings.database_dsn()) as connection:
        rows = connection.execute("SELECT run_id, error FROM tollgate.pipeline_execution_log WHERE status = 'failed'")
        return [(str(run_id), str(error)) for run_id, error in rows]


def streamed(twin: Twin, epoch: str) -> Answers:
    """Have some events decided by the ingest app; the score app answers the same transactions as repeats."""
    asked = {
        f"event-{epoch}-{number:03}": transaction(f"event-{epoch}-{number:03}", number) for number in range(N_EVENTS)
    }
    connection = twin.settings.hub_connection()
    with EventHubProducerClient.from_connection_string(connection, eventhub_name="transactions") as producer:
        batch = producer.create_batch(partition_id="0")
        for fields in asked.values():
            batch.add(EventData(json.dumps({"type": TRANSACTION_TYPE, **fields})))
        producer.send_batch(batch)
    there = f"SELECT count(*) FROM tollgate.predictions WHERE transaction_id LIKE 'event-{epoch}-%'"
    until(lambda: count(twin, there) == len(asked), f"deciding the events of {epoch}", twin)
    return {name: (fields, post(twin, fields)) for name, fields in asked.items()}


def until(condition: Callable[[], bool], what: str, twin: Twin, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} took too long\n{twin.logs()}"
        time.sleep(0.1)


def run_release(twin: Twin, release: Release) -> None:
    """Bring a release's apps up in place of what runs; returns when their hosts run and answer."""
    bring_up(release.layers(twin.settings), Records(twin.settings.root / "run"), lambda *_: None, timeout_s=60)
    for app in APPS:
        config = twin.host_config(app)
        assert config["site_packages"] == str(release.code[app].site_packages)


def wait_ready(twin: Twin) -> None:
    """Wait until every worker process of every app has said that it is ready; asked often, one may answer it all."""
    for app in APPS:
        ready: set[int] = set()

        def everywhere(app: str = app, ready: set[int] = ready) -> bool:
            workers = set(request(twin.settings.port_of(app), "GET", "/admin/host/status").json()["workers"])
            ready.update(ready_worker(twin, app, workers))
            return bool(workers) and workers <= ready

        until(everywhere, f"{app} being ready", twin)


def ready_worker(twin: Twin, app: str, workers: set[int]) -> set[int]:
    """Which worker process answered that it is ready: the other end of the connection tells; none if not ready."""
    connection = http.client.HTTPConnection(HOST, twin.settings.port_of(app), timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/api/health/ready")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            return set()
        here = connection.sock.getsockname()
        return {pid for pid in workers if any(end.raddr == here for end in psutil.Process(pid).net_connections("tcp"))}


def release_shown(twin: Twin) -> set[str | None]:
    """Which release answers, asked of every app; this one does not name itself."""
    return {json.loads(get(url(twin, "health/live", app))[1]).get("release") for app in APPS}


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """What callers met while something was done to the database.

    Attributes:
        answers: Decisions asked for one after the other.
        not_ready: What an app said each time that it was not ready.
    """

    answers: Answers
    not_ready: list[str]


def decide_meanwhile(twin: Twin, action: Callable[[], object]) -> Meanwhile:
    """Decide without a pause before, during and after an action."""
    answers: Answers = {}
    not_ready: list[str] = []
    begun, over = Event(), Event()

    def ask() -> None:
        for number in range(N_MOST_MEANWHILE):
            last = over.is_set()  # looked at first, so that one more is decided after the action
            fields = transaction(f"meanwhile-{number:04}", number)
            answers[str(fields["transaction_id"])] = (fields, post(twin, fields))
            for app in APPS:
                status, body = get(url(twin, "health/ready", app))
                if status != 200:
                    not_ready.append(f"{app}: {body}")
            begun.set()
            if last:
                return

    with ThreadPoolExecutor(max_workers=1) as pool:
        asking = pool.submit(ask)
        try:
            assert begun.wait(60), twin.logs()
            action()
        finally:
            over.set()
        asking.result(timeout=60)
    return Meanwhile(answers, not_ready)


def test_a_release_goes_out_and_back_on_one_database(
    make_twin: Callable[[], Twin], releases: tuple[Release, Release]
) -> None:
    this, following = releases
    twin = make_twin()
    try:
        # The model is there before the apps are: a worker that looked too early would look again seconds later.
        bring_up(this.layers(twin.settings)[:1], Records(twin.settings.root / "run"), lambda *_: None, timeout_s=60)
        with BlobServiceClient.from_connection_string(twin.settings.storage_connection()) as service:
            store = BlobBundles(service.get_container_client("models"))
            publish(store, golden_files(), Role.CHAMPION, clock=SystemClock(), author="tests", reason="e2e")
        run_release(twin, this)
        wait_ready(twin)
        assert release_shown(twin) == {None}
        backing = {name: twin.pid(name) for name in ("postgres", "azurite", "broker")}
        answers = decided(twin, "this") | streamed(twin, "this")
        assert differing(twin, answers) == []
        this.tollgate(twin, "seal", "--everything")

        # The next release needs its migration, and the one that runs does not mind it.
        assert f"needs {NEXT_REVISION}" in following.tollgate(twin, "db", "current", code=1)
        printed: list[str] = []
        meanwhile = decide_meanwhile(twin, lambda: printed.append(following.prepare_database(twin)))
        assert printed == [f"applied {NEXT_REVISION}\n"]
        assert meanwhile.not_ready == []
        answers |= meanwhile.answers
        assert NEXT_REVISION in following.tollgate(twin, "db", "current")
        wait_ready(twin)
        assert release_shown(twin) == {None}
        answers |= decided(twin, "migrated") | streamed(twin, "migrated")
        assert differing(twin, answers) == []

        # Out: the next release answers repeats as the one before it did.
        run_release(twin, following)
        wait_ready(twin)
        assert release_shown(twin) == {NEXT_VERSION}
        assert differing(twin, answers) == []
        answers |= decided(twin, "next") | streamed(twin, "next")

        # Back: the same steps as any deployment; the newer schema stays.
        assert this.prepare_database(twin) == "nothing to apply\n"
        run_release(twin, this)
        wait_ready(twin)
        assert release_shown(twin) == {None}
        assert this.tollgate(twin, "db", "current").startswith(f"{NEXT_REVISION}\n")
        assert differing(twin, answers) == []
        answers |= decided(twin, "back") | streamed(twin, "back")
        assert differing(twin, answers) == []

        assert count(twin, "SELECT count(*) FROM tollgate.predictions") == len(answers)
        assert count(twin, "SELECT count(*) FROM tollgate.dead_letters") == 0
        assert failed_runs(twin) == []
        assert count(twin, "SELECT count(*) FROM tollgate.pipeline_execution_log WHERE status = 'done'") > 0
        this.tollgate(twin, "seal", "--everything")
        assert f"{len(answers):,} decisions replayed" in this.tollgate(twin, "verify", "decisions")
        assert "the log is whole" in this.tollgate(twin, "verify", "log")
        assert {name: twin.pid(name) for name in backing} == backing
    finally:
        take_down(this.layers(twin.settings), Records(twin.settings.root / "run"), lambda *_: None)
