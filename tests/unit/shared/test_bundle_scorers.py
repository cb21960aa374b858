"""The source of scorers: swaps while requests go on, refuses with a reason, and keeps the last good one serving."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from shared.adapters.bundle_scorers import RETRY_REFUSED_S, BundleScorers
from shared.adapters.file_bundles import FileBundles
from shared.adapters.onnx_scorer import OnnxScorer
from shared.domain.bundle import Bundle
from shared.domain.bundle_manifest import MANIFEST, MODEL
from shared.domain.bundle_pointer import Pointed, Role
from shared.domain.errors import Transient
from shared.ports.models import Scorer
from shared.services.training_publication import give, publish
from tests.fakes.bundles import golden_files
from tests.fakes.probes import FakeClock


class Clockwork:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Store(FileBundles):
    """A store in a folder that can be cut off, and counts what is fetched."""

    fault: Exception | None = None
    fetched = 0

    def pointer(self, role: Role) -> Pointed:
        if self.fault is not None:
            raise self.fault
        return super().pointer(role)

    def get(self, digest: str) -> dict[str, bytes]:
        self.fetched += 1
        return super().get(digest)


@cache
def second_files() -> dict[str, bytes]:
    files = golden_files()
    return files | {MANIFEST: files[MANIFEST].replace(b'"name":"golden"', b'"name":"second"')}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def champion(store: Store, files: dict[str, bytes]) -> str:
    digest = publish(store, files, Role.CHAMPION, clock=FakeClock(), author="a", reason="test").digest
    assert digest is not None
    return digest


def damage(store: Store, tmp_path: Path, digest: str) -> None:
    path = tmp_path / "bundles" / digest / MODEL
    path.write_bytes(path.read_bytes()[:-1])


def test_without_a_champion_there_is_none_yet(store: Store) -> None:
    scorers = BundleScorers(store, OnnxScorer)
    with pytest.raises(Transient, match="not looked for yet"):
        scorers.current()
    assert not scorers.refresh()
    with pytest.raises(Transient, match="no champion yet: no bundle is champion"):
        scorers.current()


def test_a_champion_is_loaded_once_and_stays_the_same_object(store: Store) -> None:
    digest = champion(store, golden_files())
    scorers = BundleScorers(store, OnnxScorer)
    assert scorers.refresh()
    scorer = scorers.current()
    assert scorer.bundle_digest == digest
    assert not scorers.refresh()
    assert scorers.current() is scorer
    assert store.fetched == 1
    assert (scorers.problem, scorers.refusal) == ("", None)


def test_another_champion_takes_over_and_the_first_comes_back(store: Store) -> None:
    first = champion(store, golden_files())
    scorers = BundleScorers(store, OnnxScorer)
    scorers.refresh()
    second = champion(store, second_files())
    assert scorers.refresh()
    assert scorers.current().bundle_digest == second
    give(store, first, Role.CHAMPION, clock=FakeClock(), author="a", reason="rollback")
    assert scorers.refresh()
    assert scorers.current().bundle_digest == first


def test_roles_are_followed_apart(store: Store) -> None:
    champion(store, golden_files())
    scorers = BundleScorers(store, OnnxScorer, role=Role.SHADOW)
    assert not scorers.refresh()
    with pytest.raises(Transient, match="no shadow yet"):
        scorers.current()


def test_a_damaged_bundle_is_refused_with_its_reason_and_the_last_good_one_serves(store: Store, tmp_path: Path) -> None:
    good = champion(store, golden_files())
    scorers = BundleScorers(store, OnnxScorer)
    scorers.refresh()
    bad = champion(store, second_files())
    damage(store, tmp_path, bad)
    assert not scorers.refresh()
    assert scorers.current().bundle_digest == good
    assert scorers.refusal is not None
    assert scorers.refusal.digest == bad
    assert "model.onnx is not what the manifest says" in scorers.refusal.reason
    assert bad[:12] in scorers.problem


def test_without_a_good_one_before_the_refusal_is_what_is_said(store: Store, tmp_path: Path) -> None:
    damage(store, tmp_path, champion(store, golden_files()))
    scorers = BundleScorers(store, OnnxScorer)
    scorers.refresh()
    with pytest.raises(Transient, match=r"is refused: model\.onnx is not what"):
        scorers.current()


def test_a_refused_bundle_is_fetched_again_only_after_a_while(store: Store, tmp_path: Path) -> None:
    digest = champion(store, golden_files())
    whole = (tmp_path / "bundles" / digest / MODEL).read_bytes()
    damage(store, tmp_path, digest)
    clock = Clockwork()
    scorers = BundleScorers(store, OnnxScorer, monotonic=clock)
    for _ in range(5):
        assert not scorers.refresh()
    assert store.fetched == 1
    (tmp_path / "bundles" / digest / MODEL).write_bytes(whole)  # its upload is completed
    clock.now_s = RETRY_REFUSED_S
    assert scorers.refresh()
    assert scorers.current().bundle_digest == digest
    assert scorers.refusal is None


def test_a_refusal_is_still_the_problem_after_the_store_was_away(store: Store, tmp_path: Path) -> None:
    damage(store, tmp_path, champion(store, golden_files()))
    scorers = BundleScorers(store, OnnxScorer, monotonic=Clockwork())
    scorers.refresh()
    refused = scorers.problem
    store.fault = Transient("away")
    scorers.refresh()
    assert scorers.problem == "away"
    store.fault = None
    scorers.refresh()
    assert scorers.problem == refused
    assert store.fetched == 1


def test_another_pointer_ends_a_refusal_at_once(store: Store, tmp_path: Path) -> None:
    damage(store, tmp_path, champion(store, golden_files()))
    scorers = BundleScorers(store, OnnxScorer)
    scorers.refresh()
    good = champion(store, second_files())
    assert scorers.refresh()
    assert scorers.current().bundle_digest == good
    assert scorers.refusal is None


def test_a_bundle_whose_view_is_not_ready_is_refused(store: Store) -> None:
    champion(store, golden_files())
    scorers = BundleScorers(store, OnnxScorer, views=lambda view: f"{view.name} is filling")
    scorers.refresh()
    assert scorers.refusal is not None
    assert scorers.refusal.reason == "its feature view card-v1 may not decide: card-v1 is filling"
    assert BundleScorers(store, OnnxScorer, views=lambda _: "").refresh()


def test_while_the_store_is_away_the_last_good_one_serves(store: Store) -> None:
    digest = champion(store, golden_files())
    scorers = BundleScorers(store, OnnxScorer)
    scorers.refresh()
    store.fault = Transient("the store cannot be reached")
    assert not scorers.refresh()
    assert scorers.current().bundle_digest == digest
    assert scorers.problem == "the store cannot be reached"
    store.fault = None
    scorers.refresh()
    assert scorers.problem == ""


def test_a_champion_taken_away_leaves_the_last_one_serving(store: Store) -> None:
    digest = champion(store, golden_files())
    scorers = BundleScorers(store, OnnxScorer)
    scorers.refresh()
    give(store, None, Role.CHAMPION, clock=FakeClock(), author="a", reason="none")
    assert not scorers.refresh()
    assert scorers.current().bundle_digest == digest
    assert scorers.problem == "no bundle is champion"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def digest_of(scorers: BundleScorers) -> str | None:
    try:
        return scorers.current().bundle_digest
    except Transient:
        return None


def test_a_swap_under_load_fails_no_request(store: Store) -> None:
    digests = [champion(store, golden_files()), champion(store, second_files())]
    scorers = BundleScorers(store, OnnxScorer, poll_s=0.01)
    scorers.start()
    scorers.start()  # a second call does nothing
    wait_for(lambda: digest_of(scorers) == digests[1])
    vectors = np.zeros((4, 25), dtype=np.float32)
    want = scorers.current().score(vectors)
    stopping, failures = threading.Event(), []
    seen: set[str] = set()

    def request() -> None:
        while not stopping.is_set():
            try:
                scorer = scorers.current()
                scored = scorer.score(vectors)
                if scored.raw.tobytes() != want.raw.tobytes():  # both bundles hold the same model
                    failures.append("other bits")
                seen.add(scorer.bundle_digest)
                time.sleep(0.0005)  # three threads that never wait would starve the one that swaps
            except Exception as error:  # noqa: BLE001 - whatever it is, it fails the test
                failures.append(repr(error))

    threads = [threading.Thread(target=request) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(6):
        digest = digests[number % 2]
        give(store, digest, Role.CHAMPION, clock=FakeClock(), author="a", reason="swap")
        wait_for(lambda digest=digest: digest_of(scorers) == digest and digest in seen)  # type: ignore[misc]
    stopping.set()
    for thread in threads:
        thread.join()
    scorers.stop()
    scorers.stop()
    assert failures == []
    assert seen == set(digests)


def test_the_background_thread_outlives_what_nobody_foresaw(store: Store) -> None:
    digest = champion(store, golden_files())
    troubles = [RuntimeError("a bug")]
    seen = threading.Event()

    def load(bundle: Bundle) -> Scorer:
        if troubles:
            raise troubles.pop()
        seen.wait(60)
        return OnnxScorer(bundle)

    scorers = BundleScorers(store, load, poll_s=0.01)
    scorers.start()
    wait_for(lambda: "failed unexpectedly" in scorers.problem)
    seen.set()
    wait_for(lambda: digest_of(scorers) == digest)
    scorers.stop()
    assert not troubles
