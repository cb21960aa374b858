"""How queued records get to the registry, and what happens when they do not."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from shared.adapters.file_bundles import FileBundles
from shared.domain.bundle import bundle_digest
from shared.domain.bundle_manifest import MANIFEST, read_manifest
from shared.domain.bundle_pointer import Pointer, Role
from shared.domain.errors import BrokenInvariant, Transient
from shared.domain.instants import US_PER_HOUR, US_PER_MINUTE
from shared.domain.registry import RegistryRecord, run_record
from shared.domain.registry_rows import MeasuredRows
from shared.ports.models import BundleStore
from shared.services.registry import LEASE, LEASE_US, MAX_RECORDS, RegistryParts, write_waiting
from tests.fakes.bundles import golden_files
from tests.fakes.pipelines import FakeLeases
from tests.fakes.probes import FakeClock
from tests.fakes.registry import FakeMeasuredRows, FakePlots, FakeRecords, FakeRegistry

FILES = golden_files()
DIGEST = bundle_digest(FILES[MANIFEST])
RUN = run_record(read_manifest(FILES[MANIFEST]), DIGEST, created_at_us=5, run_id="retrain/1")
CHAMPION = Pointer(Role.CHAMPION, DIGEST, 1, 6, "ada", "better")
ROWS = MeasuredRows(np.ones(3, np.float32), np.ones(3, np.bool_), np.ones(3, np.int64), np.ones((3, 25), np.float32))


@dataclass
class Scene:
    bundles: BundleStore
    records: FakeRecords = field(default_factory=FakeRecords)
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    rows: FakeMeasuredRows = field(default_factory=FakeMeasuredRows)
    leases: FakeLeases = field(default_factory=FakeLeases)
    clock: FakeClock = field(default_factory=FakeClock)

    def fire(self, *records: RegistryRecord) -> dict[str, object]:
        for record in records:
            assert self.records.enqueue(record)
        parts = RegistryParts(
            self.records, self.registry, self.bundles, self.rows, FakePlots(), self.leases, self.clock, "here"
        )
        return dict(write_waiting(parts))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    bundles = FileBundles(tmp_path)
    bundles.put(FILES)
    return Scene(bundles)


def test_a_run_arrives_with_its_files_and_pictures(scene: Scene) -> None:
    scene.rows.put(DIGEST, ROWS)
    assert scene.fire(RUN) == {"written": 1, "put_off": 0, "waiting": 0}
    assert scene.registry.runs == {"retrain/1": RUN}
    assert scene.registry.files["retrain/1"] == (sorted(FILES), ["picture.png"])
    assert scene.fire() == {"written": 0, "put_off": 0, "waiting": 0}


def test_a_run_whose_rows_were_not_kept_arrives_without_pictures(scene: Scene) -> None:
    scene.fire(RUN)
    assert scene.registry.files["retrain/1"] == (sorted(FILES), [])


def test_what_the_registry_has_is_not_written_again(scene: Scene) -> None:
    scene.registry.runs["retrain/1"] = RUN
    assert scene.fire(RUN) == {"written": 1, "put_off": 0, "waiting": 0}
    assert scene.registry.files == {}


def test_a_role_is_given_after_the_run_that_made_its_bundle(scene: Scene) -> None:
    assert scene.fire(RUN, CHAMPION)["written"] == 2
    assert scene.registry.roles == {Role.CHAMPION: CHAMPION}
    assert list(scene.registry.runs) == ["retrain/1"]


def test_a_role_given_to_a_bundle_that_nobody_recorded_makes_a_run_of_it(scene: Scene) -> None:
    assert scene.fire(CHAMPION)["written"] == 1
    assert scene.registry.roles == {Role.CHAMPION: CHAMPION}
    assert list(scene.registry.runs) == [f"bundle/{DIGEST}"]


def test_a_role_that_nobody_plays_needs_no_bundle(scene: Scene) -> None:
    nobody = replace(CHAMPION, digest=None, number=2)
    assert scene.fire(CHAMPION, nobody)["written"] == 2
    assert scene.registry.roles == {Role.CHAMPION: nobody}


def test_while_the_registry_is_down_records_wait_and_are_tried_less_and_less_often(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.registry.fault = Transient("the registry answered 503")
    assert scene.fire(RUN, CHAMPION) == {"written": 0, "put_off": 1, "waiting": 2}
    waits = []
    for _ in range(12):
        now_us = scene.clock.now_us()
        waits.append((scene.records.next_at_us[1] - now_us) // US_PER_MINUTE)
        scene.clock.time_us = scene.records.next_at_us[1]
        scene.records.next_at_us[2] = scene.clock.time_us + 1  # the role's own turn comes later
        assert scene.fire()["put_off"] == 1
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]
    assert scene.records.errors[1] == "the registry answered 503"
    assert {entry.levelno for entry in caplog.records} == {logging.WARNING}
    scene.registry.fault = None
    scene.clock.time_us += US_PER_HOUR
    assert scene.fire() == {"written": 2, "put_off": 0, "waiting": 0}
    assert scene.registry.roles == {Role.CHAMPION: CHAMPION}


def test_a_registry_that_is_down_is_asked_once_in_a_firing(scene: Scene) -> None:
    scene.registry.fault = Transient("no answer")
    assert scene.fire(*(replace(RUN, run_id=f"retrain/{number}") for number in range(5)))["put_off"] == 1
    assert [scene.records.waiting[number].attempts for number in range(1, 6)] == [1, 0, 0, 0, 0]


def test_a_record_that_cannot_be_written_does_not_hold_up_the_others(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    gone = replace(RUN, run_id="retrain/0", bundle_digest="ab" * 32)
    assert scene.records.enqueue(replace(RUN, run_id="retrain/9"))
    scene.records.waiting[1] = replace(scene.records.waiting[1], document={"run": "unreadable"})
    assert scene.fire(gone, replace(CHAMPION, digest="cd" * 32), RUN) == {"written": 1, "put_off": 3, "waiting": 3}
    assert list(scene.registry.runs) == ["retrain/1"]
    assert {entry.levelno for entry in caplog.records} == {logging.ERROR}


def test_a_bundle_that_was_damaged_is_not_written(scene: Scene, tmp_path: Path) -> None:
    (model,) = tmp_path.rglob("model.onnx")
    model.chmod(0o600)
    model.write_bytes(b"another")
    assert scene.fire(RUN)["put_off"] == 1
    assert "damaged" in scene.records.errors[1]
    assert scene.registry.runs == {}


def test_a_firing_is_bounded(scene: Scene) -> None:
    many = [replace(RUN, run_id=f"retrain/{number}") for number in range(MAX_RECORDS + 3)]
    assert scene.fire(*many) == {"written": MAX_RECORDS, "put_off": 0, "waiting": 3}
    assert scene.fire() == {"written": 3, "put_off": 0, "waiting": 0}


def test_a_firing_ends_under_its_lease_however_slow_the_registry_is(scene: Scene) -> None:
    def slow() -> None:
        scene.clock.time_us += 2 * US_PER_MINUTE

    scene.registry.slow = slow
    assert scene.fire(*(replace(RUN, run_id=f"retrain/{number}") for number in range(9)))["written"] == 3
    assert 6 * US_PER_MINUTE < LEASE_US


def test_one_process_writes_at_a_time(scene: Scene) -> None:
    now_us = scene.clock.now_us()
    assert scene.leases.acquire(LEASE, "another", now_us, LEASE_US)
    assert scene.fire(RUN) == {"written": 0, "put_off": 0, "waiting": 1}
    scene.clock.time_us += LEASE_US
    assert scene.fire() == {"written": 1, "put_off": 0, "waiting": 0}
    assert scene.leases.holder(LEASE, scene.clock.now_us()) is None


def test_the_lease_is_given_back_whatever_happens(scene: Scene) -> None:
    scene.registry.fault = BrokenInvariant("refused")
    scene.fire(RUN)
    assert scene.leases.held == {}
