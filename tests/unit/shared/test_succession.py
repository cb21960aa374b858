"""Succession: who may become what, what is refused and why, and what a writer that died is followed by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.adapters.file_bundles import FileBundles
from shared.domain.bundle import bundle_digest
from shared.domain.bundle_manifest import MANIFEST, MODEL, read_manifest
from shared.domain.bundle_pointer import Pointed, Pointer, Role
from shared.domain.errors import BrokenInvariant, Conflict, InvalidInput, NotFound, TollgateError, Transient
from shared.domain.feature_view import CARD_V1
from shared.domain.kept_view import KeptView, ViewStatus, definition_digest
from shared.domain.promotion import Check, CheckName, GateRules, Verdict, read_verdict, write_verdict
from shared.domain.registry import read_record
from shared.ports.succession import Action, Change, KeptVerdict, ModelStatus
from shared.services.succession import Succession, line_of
from shared.services.training_publication import publish
from tests.fakes.bundles import golden_files
from tests.fakes.probes import FakeClock
from tests.fakes.registry import FakeRecords
from tests.fakes.succession import FakePromotions
from tests.fakes.views import FakeViewBook

A = {"author": "ada", "reason": "because"}


@cache
def files(number: int) -> dict[str, bytes]:
    """The recorded bundle as another version of its model, so that each number has another digest."""
    made = golden_files()
    version = f'"version":{number}'.encode()
    return made | {MANIFEST: made[MANIFEST].replace(b'"version":1', version)}


def digest(number: int) -> str:
    return bundle_digest(files(number)[MANIFEST])


def verdict(challenger: str, champion: str | None, *refused: CheckName, as_of_us: int = 1) -> bytes:
    checks = tuple(
        Check(name, 0.5, None, "at least 0.8", name not in refused, "as found")
        for name in (CheckName.OPENS, CheckName.RECALL, CheckName.PRECISION, CheckName.SLOPE)
    )
    return write_verdict(Verdict(challenger, champion, "golden 1", as_of_us, GateRules(), None, checks))


class Store(FileBundles):
    """A store that can be cut off from writing pointers, or have somebody write one just before."""

    fault: TollgateError | None = None
    before_point: Callable[[], object] | None = None

    def point(self, change: Pointer, tag: str) -> Pointed:
        before, self.before_point = self.before_point, None
        if before is not None:
            before()
        if self.fault is not None:
            raise self.fault
        return super().point(change, tag)


@dataclass
class Account(FakePromotions):
    """An account that somebody else may change just before it is changed."""

    before_append: Callable[[], object] | None = None

    def append(self, changes: Sequence[Change], seen: Mapping[Role, int], verdict: KeptVerdict | None = None) -> None:
        before, self.before_append = self.before_append, None
        if before is not None:
            before()
        super().append(changes, seen, verdict)


class World:
    """A store with three bundles, an account, and who changes roles in them."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self.promotions = Account()
        self.records = FakeRecords()
        self.clock = FakeClock()
        self.views = FakeViewBook()
        for number in range(1, 4):
            self.store.put(files(number))
        self.throne = self.another()

    def another(self) -> Succession:
        return Succession(self.store, self.promotions, self.clock, views=self.views, records=self.records)

    def pass_gate(self, number: int, champion: int | None) -> None:
        document = verdict(digest(number), None if champion is None else digest(champion))
        self.throne.judged(document, None, self.clock.now_us())

    def reign(self, *numbers: int) -> None:
        """Let these become champion one after the other."""
        before: int | None = None
        for number in numbers:
            self.pass_gate(number, before)
            self.throne.promote(digest(number), **A)
            before = number

    def champion(self) -> str | None:
        return self.store.pointer(Role.CHAMPION).digest

    def status(self, number: int) -> ModelStatus:
        return {model.digest: model.status for model in self.throne.models()}[digest(number)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_promotion_reaches_account_pointer_status_and_registry(world: World) -> None:
    world.reign(1, 2)
    change = world.throne.present()[Role.CHAMPION]
    kept = world.promotions.verdict(digest(2))
    assert kept is not None
    assert (change.action, change.verdict_digest) == (Action.PROMOTE, kept.digest)
    assert world.store.pointer(Role.CHAMPION).pointer == change.pointer
    assert (change.pointer.number, change.pointer.author, change.pointer.reason) == (2, "ada", "because")
    assert (world.status(1), world.status(2)) == (ModelStatus.RETIRED, ModelStatus.CHAMPION)
    assert [read_record(waiting.document) for waiting in world.records.due(0, 9)] == [
        one.pointer for one in world.throne.history(Role.CHAMPION)
    ]


def test_promoting_the_champion_again_changes_nothing(world: World) -> None:
    world.reign(1)
    assert world.throne.promote(digest(1), **A) == world.throne.present()[Role.CHAMPION]
    assert len(world.throne.history()) == 1


def test_a_challenger_that_becomes_champion_is_challenger_no_more(world: World) -> None:
    world.reign(1)
    world.throne.appoint(Role.CHALLENGER, digest(2), **A)
    world.throne.appoint(Role.SHADOW, digest(3), **A)
    assert (world.status(2), world.status(3)) == (ModelStatus.CHALLENGER, ModelStatus.SHADOW)
    world.pass_gate(2, 1)
    world.throne.promote(digest(2), **A)
    assert world.status(2) is ModelStatus.CHAMPION
    assert world.store.pointer(Role.CHALLENGER).digest is None
    assert world.store.pointer(Role.SHADOW).digest == digest(3)


def test_without_a_verdict_nothing_is_promoted(world: World) -> None:
    with pytest.raises(InvalidInput, match="no verdict of the gate"):
        world.throne.promote(digest(1), **A)
    assert world.champion() is None
    assert not world.throne.history()


def test_a_refused_model_is_not_promoted_and_the_checks_are_named(world: World) -> None:
    world.throne.judged(verdict(digest(1), None, CheckName.RECALL, CheckName.SLOPE), "retrain/1", 5)
    assert world.status(1) is ModelStatus.REFUSED
    with pytest.raises(InvalidInput, match="recall floor, calibration slope"):
        world.throne.promote(digest(1), **A)
    assert world.champion() is None


def test_the_last_verdict_counts(world: World) -> None:
    world.pass_gate(1, None)
    world.throne.judged(verdict(digest(1), None, CheckName.SLOPE, as_of_us=2), None, world.clock.now_us() + 1)
    with pytest.raises(InvalidInput, match="calibration slope"):
        world.throne.promote(digest(1), **A)


def test_a_verdict_against_another_champion_does_not_count(world: World) -> None:
    world.reign(1)
    world.pass_gate(3, 1)
    world.pass_gate(2, 1)
    world.throne.promote(digest(2), **A)
    with pytest.raises(InvalidInput, match=f"compared with {digest(1)[:12]}, and champion is {digest(2)[:12]}"):
        world.throne.promote(digest(3), **A)
    assert world.champion() == digest(2)


def test_a_damaged_bundle_is_not_promoted(world: World, tmp_path: Path) -> None:
    world.pass_gate(1, None)
    model = next(tmp_path.rglob(f"*{digest(1)}*/{MODEL}"))
    model.chmod(0o644)
    model.write_bytes(b"x" + model.read_bytes()[1:])
    with pytest.raises(BrokenInvariant, match="damaged"):
        world.throne.promote(digest(1), **A)
    assert not world.throne.history()


def test_a_view_that_may_not_decide_does_not_serve(world: World) -> None:
    world.pass_gate(1, None)
    world.views.keep(replace(KeptView.of(CARD_V1, ViewStatus.COMPLETE, 1), definition="0" * 64))
    for change in (world.throne.promote, world.throne.accept):
        with pytest.raises(InvalidInput, match="card-v1 may not decide: its definition is not the one that was kept"):
            change(digest(1), **A)
    world.throne.appoint(Role.SHADOW, digest(1), **A)  # it decides nothing there


def test_the_definition_of_a_champions_view_is_kept_from_the_first_one_on(world: World) -> None:
    world.throne.appoint(Role.SHADOW, digest(3), **A)
    assert not world.views.kept()
    world.reign(1, 2)
    (kept,) = world.views.kept()
    assert (kept.name, kept.status, kept.definition) == ("card-v1", ViewStatus.COMPLETE, definition_digest(CARD_V1))
    world.throne.rollback(**A)
    assert world.views.kept() == [kept]


def test_a_first_champion_that_misses_floors_is_accepted_on_a_persons_word(world: World) -> None:
    world.throne.judged(verdict(digest(1), None, CheckName.RECALL), "retrain/1", 5)
    change = world.throne.accept(digest(1), **A)
    assert change.action is Action.ACCEPT
    kept = world.promotions.verdicts[str(change.verdict_digest)]
    word = read_verdict(kept.document.encode()).acceptance
    assert word is not None
    assert (word.author, word.reason, kept.passed, kept.run_id) == ("ada", "because", False, "retrain/1")
    assert world.champion() == digest(1)


@pytest.mark.parametrize(
    ("refused", "words"), [((), "nothing to accept"), ((CheckName.RECALL, CheckName.SLOPE), "calibration slope")]
)
def test_only_missed_floors_can_be_accepted(world: World, refused: tuple[CheckName, ...], words: str) -> None:
    world.throne.judged(verdict(digest(1), None, *refused), None, 5)
    with pytest.raises(InvalidInput, match=words):
        world.throne.accept(digest(1), **A)
    assert world.champion() is None


def test_only_a_first_champion_can_be_accepted(world: World) -> None:
    world.throne.accept(digest(1), **A)
    with pytest.raises(InvalidInput, match="only for a first champion"):
        world.throne.accept(digest(2), **A)
    assert world.throne.accept(digest(1), **A).pointer.number == 1


@pytest.mark.parametrize("word", [{"author": "ada", "reason": " "}, {"author": "", "reason": "because"}])
def test_nobody_is_accepted_without_author_and_reason(world: World, word: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match=" must "):
        world.throne.accept(digest(1), **word)
    assert world.champion() is None


def test_rolling_back_goes_one_further_each_time(world: World) -> None:
    world.reign(1, 2, 3)
    assert world.throne.rollback(**A).pointer.digest == digest(2)
    assert world.throne.rollback(**A).pointer.digest == digest(1)
    with pytest.raises(InvalidInput, match="there is none"):
        world.throne.rollback(**A)
    assert [change.action for change in world.throne.history(Role.CHAMPION)][-2:] == [Action.ROLLBACK] * 2
    assert (world.status(1), world.status(3)) == (ModelStatus.CHAMPION, ModelStatus.RETIRED)


def test_a_named_champion_comes_back_and_no_other(world: World) -> None:
    world.reign(1, 2, 3)
    assert world.throne.rollback(to=digest(1), **A).pointer.digest == digest(1)
    with pytest.raises(InvalidInput, match="was never champion"):
        world.throne.rollback(to="4" * 64, **A)
    assert world.throne.rollback(to=digest(3), **A).pointer.digest == digest(3)


@given(st.lists(st.one_of(st.none(), st.integers(1, 3)), max_size=14))
def test_a_rollback_undoes_the_last_promotion_that_stands(steps: list[int | None]) -> None:
    changes: list[Change] = []
    stack: list[int] = []
    for number, step in enumerate(steps, start=1):
        if len(stack) < 2 if step is None else stack[-1:] == [step]:
            continue
        if step is None:
            stack.pop()
        else:
            stack.append(step)
        pointer = Pointer(Role.CHAMPION, digest(stack[-1]), number, number, "ada", "because")
        changes.append(Change(pointer, Action.ROLLBACK if step is None else Action.PROMOTE))
    line = line_of(changes)
    assert line[-1:] == [digest(number) for number in stack[-1:]]
    assert line[-2:] == [digest(number) for number in stack[-2:]]


def test_a_tried_model_is_no_champion_and_a_champion_is_not_tried(world: World) -> None:
    world.reign(1)
    with pytest.raises(InvalidInput, match="must be challenger or shadow"):
        world.throne.appoint(Role.CHAMPION, digest(2), **A)
    with pytest.raises(InvalidInput, match="is champion"):
        world.throne.appoint(Role.SHADOW, digest(1), **A)
    with pytest.raises(InvalidInput, match="replaced or rolled back"):
        world.throne.retire(Role.CHAMPION, **A)
    assert world.throne.retire(Role.SHADOW, **A) is None
    world.throne.appoint(Role.SHADOW, digest(2), **A)
    retired = world.throne.retire(Role.SHADOW, **A)
    assert retired is not None
    assert (retired.action, retired.pointer.digest, world.status(2)) == (Action.RETIRE, None, ModelStatus.RETIRED)
    assert world.throne.retire(Role.SHADOW, **A) == retired


def test_a_first_model_is_installed_and_a_second_one_waits_for_the_gate(world: World) -> None:
    first = world.throne.install(files(1), Role.CHAMPION, author="tollgate train", reason="first")
    assert (first.action, first.pointer.author) == (Action.ACCEPT, "tollgate train")
    assert world.throne.install(files(1), Role.CHAMPION, **A) == first
    with pytest.raises(InvalidInput, match=f"{digest(2)} is kept as a candidate"):
        world.throne.install(files(2), Role.CHAMPION, **A)
    assert (world.champion(), world.status(2)) == (digest(1), ModelStatus.CANDIDATE)
    assert world.throne.install(files(3), Role.CHALLENGER, **A).action is Action.CHALLENGE


def test_two_bundles_of_one_name_and_version_are_told(world: World) -> None:
    world.reign(1)
    twin = files(1) | {MANIFEST: files(1)[MANIFEST].replace(b'"confidence":0.95', b'"confidence":0.94')}
    with pytest.raises(Conflict, match=f"1 of golden is the bundle {digest(1)[:12]} already"):
        world.throne.install(twin, Role.SHADOW, **A)


def test_whoever_is_slower_is_told_who_won(world: World) -> None:
    world.reign(1)
    world.pass_gate(2, 1)
    world.pass_gate(3, 1)
    world.promotions.before_append = lambda: world.another().promote(digest(3), author="grace", reason="was faster")
    with pytest.raises(Conflict, match=f"{digest(3)[:12]} by grace .was faster."):
        world.throne.promote(digest(2), **A)
    assert (world.champion(), world.status(2)) == (digest(3), ModelStatus.CANDIDATE)


@pytest.mark.parametrize("next_one", ["reconcile", "promote", "rollback"])
def test_the_next_one_finishes_what_a_dead_writer_began(world: World, next_one: str) -> None:
    world.reign(1, 2)
    world.pass_gate(3, 2)
    world.store.fault = Transient("the process was killed here")
    with pytest.raises(Transient, match="state 3 of champion"):
        world.throne.promote(digest(3), **A)
    assert world.champion() == digest(2)
    world.store.fault = None
    calls: dict[str, Callable[[], object]] = {
        "reconcile": world.throne.reconcile,
        "promote": lambda: world.throne.promote(digest(3), **A),
        "rollback": lambda: world.throne.rollback(**A),
    }
    calls[next_one]()
    assert world.champion() == digest(2 if next_one == "rollback" else 3)
    assert [state.number for state in world.store.history(Role.CHAMPION)] == [
        change.pointer.number for change in world.throne.history(Role.CHAMPION)
    ]
    assert world.throne.reconcile() == 0


def test_two_that_follow_at_once_write_each_state_once(world: World) -> None:
    world.store.fault = Transient("away")
    world.pass_gate(1, None)
    with pytest.raises(Transient):
        world.throne.promote(digest(1), **A)
    world.store.fault = None
    world.store.before_point = lambda: world.another().reconcile()
    assert world.throne.reconcile() == 0
    assert len(world.store.history(Role.CHAMPION)) == 1


def test_pointers_that_were_set_elsewhere_are_entered_as_they_are(world: World) -> None:
    for number in (1, 2):
        publish(world.store, files(number), Role.CHAMPION, clock=world.clock, author="demo", reason=f"model {number}")
    assert world.throne.reconcile() == 2
    changes = world.throne.history(Role.CHAMPION)
    assert [change.pointer for change in changes] == world.store.history(Role.CHAMPION)
    assert {change.action for change in changes} == {Action.ADOPT}
    assert (world.status(1), world.status(2)) == (ModelStatus.RETIRED, ModelStatus.CHAMPION)
    assert world.throne.reconcile() == 0
    assert world.throne.rollback(**A).pointer.digest == digest(1)


def test_a_pointer_that_contradicts_the_account_stops_everything(world: World, tmp_path: Path) -> None:
    world.reign(1)
    other = World(tmp_path)  # the same pointers, and an account of its own
    other.promotions.changes = [
        Change(Pointer(Role.CHAMPION, digest(2), 1, 7, "eve", "another database"), Action.ACCEPT),
    ]
    with pytest.raises(BrokenInvariant, match="state 1 of champion"):
        other.throne.promote(digest(3), **A)
    assert world.champion() == digest(1)


def test_an_account_that_is_away_stops_a_change_and_not_the_models(world: World) -> None:
    world.reign(1)
    world.promotions.fault = Transient("the database is away")
    with pytest.raises(Transient):
        world.throne.rollback(**A)
    assert world.champion() == digest(1)


def test_a_registry_queue_that_is_away_stops_nothing(world: World) -> None:
    world.records.fault = Transient("the queue is away")
    world.reign(1)
    assert world.champion() == digest(1)


def test_digests_may_be_shortened_where_that_is_clear(world: World) -> None:
    assert world.throne.find(digest(2)) == digest(2)
    assert world.throne.find(digest(2)[:6]) == digest(2)
    for text in (digest(2)[:5], "no digest", digest(2).upper()):
        with pytest.raises(InvalidInput, match="must be 6 to 64 hexadecimal digits"):
            world.throne.find(text)
    with pytest.raises(NotFound):
        world.throne.find("0" * 64)


def test_a_prefix_of_several_bundles_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.store, "digests", lambda: ["abcdef" + "0" * 58, "abcdef" + "1" * 58])
    with pytest.raises(InvalidInput, match="fits 2 bundles"):
        world.throne.find("abcdef")


def test_a_verdict_on_what_cannot_be_opened_is_kept_all_the_same(world: World) -> None:
    unknown = "f" * 64
    world.throne.judged(verdict(unknown, None, CheckName.OPENS), None, 5)
    kept = world.promotions.verdict(unknown)
    assert kept is not None
    assert not kept.passed


def test_a_verdict_on_a_damaged_bundle_is_kept_all_the_same(world: World, tmp_path: Path) -> None:
    model = next(tmp_path.rglob(f"*{digest(1)}*/{MODEL}"))
    model.chmod(0o644)
    model.write_bytes(b"x" + model.read_bytes()[1:])
    world.throne.judged(verdict(digest(1), None, CheckName.OPENS), None, 5)
    assert world.throne.verdict(digest(1)) is not None
    assert not world.throne.models()


def test_a_model_is_registered_with_what_it_learnt_from(world: World) -> None:
    world.reign(1)
    (model,) = world.throne.models()
    spans = read_manifest(files(1)[MANIFEST]).spans
    assert (model.trained_from_us, model.trained_until_us) == (spans["train"].start_us, spans["calibration"].end_us)
    assert spans["test"].start_us >= model.trained_until_us
    assert model.metrics["average_precision"][0] > 0
