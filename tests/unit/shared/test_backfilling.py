"""A feature view that looks further back than state is kept: declared, filled a group at a time, and then complete."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest

from shared.domain.entity_state_layout import Span
from shared.domain.errors import BrokenInvariant, Conflict, Transient
from shared.domain.feature_view import CARD_V1, HANDBOOK_V1, Entity, Feature, FeatureView, Measure, Null
from shared.domain.instants import US_PER_DAY
from shared.domain.kept_view import KeptView, Place, ViewStatus, why_refused
from shared.domain.labels import LABEL_DELAY_US
from shared.ports.views import Filled
from shared.services.backfilling import Backfilling
from shared.services.scoring import Decided, Refused
from tests.contract.ledger_stores import scoring
from tests.fakes.ledger import FakeLedger
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers, LinearScorer
from tests.fakes.views import FakeViewBook
from tests.unit.domain.worlds import transaction

NEAR = Feature("customer_count_120d", Measure.COUNT, "transactions", entity=Entity.CUSTOMER, window_us=120 * US_PER_DAY)
FAR = Feature("n", Measure.COUNT, "transactions", Null.ZERO, Entity.TERMINAL, 60 * US_PER_DAY, LABEL_DELAY_US)
FURTHER = FeatureView("further-v1", (*HANDBOOK_V1.features, FAR))
BOTH = FeatureView("both-v1", (*HANDBOOK_V1.features, FAR, NEAR))
TERMINALS = [f"m{number}" for number in range(5)]


@dataclass
class FakeFilling:
    """Entities by key with the horizon that they were brought to; fails on the entity that `fails_at` names."""

    book: FakeViewBook
    keys: dict[Entity, list[str]] = field(
        default_factory=lambda: {Entity.CUSTOMER: ["c0", "c1"], Entity.TERMINAL: list(TERMINALS)}
    )
    spans: dict[tuple[Entity, str], list[Span]] = field(default_factory=dict)
    calls: list[object] = field(default_factory=list)
    is_held: bool = False
    fails_at: str = ""

    @contextmanager
    def alone(self) -> Iterator[None]:
        if self.is_held:
            raise Conflict("view", "somebody else is filling")
        self.is_held = True
        try:
            yield
        finally:
            self.is_held = False

    def outlast_writers(self) -> None:
        assert any(view.status is ViewStatus.DECLARED for view in self.book.kept())
        self.calls.append("waited")

    def count(self, entity: Entity) -> int:
        return len(self.keys[entity])

    def fill(self, entity: Entity, span: Span, after: str, limit: int) -> Filled | None:
        assert self.is_held
        part = [key for key in sorted(self.keys[entity]) if key > after][:limit]
        self.calls.append((entity, after))
        for key in part:
            if key == self.fails_at:
                raise Transient("killed")
            self.spans.setdefault((entity, key), []).append(span)
        return Filled(part[-1], len(part), 10 * len(part)) if part else None


@dataclass
class Bench:
    book: FakeViewBook = field(default_factory=FakeViewBook)
    clock: FakeClock = field(default_factory=FakeClock)
    told: list[tuple[int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.filling = FakeFilling(self.book)

    def run(self, view: FeatureView) -> KeptView:
        def tell(at: KeptView, total: int) -> None:
            self.told.append((at.entities, at.transactions, total))

        return Backfilling(self.book, self.filling, self.clock, group=2).run(view, tell)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_view_is_declared_then_filled_and_complete_only_in_the_end(bench: Bench) -> None:
    statuses: list[str] = []
    keep = bench.book.note

    def note(view: KeptView) -> None:
        statuses.append(f"{view.status} {view.entities}")
        keep(view)

    bench.book.note = note  # type: ignore[method-assign]  # what is noted, in order
    found = bench.run(FURTHER)
    assert statuses == ["filling 0", "filling 2", "filling 4", "filling 5", "complete 5"]
    assert bench.filling.calls == ["waited", *((Entity.TERMINAL, after) for after in ("", "m1", "m3", "m4"))]
    assert bench.told == [(2, 20, 5), (4, 40, 5), (5, 50, 5)]
    assert found == bench.book.views[FURTHER.name]
    assert (found.status, found.completed_at_us) == (ViewStatus.COMPLETE, bench.clock.now_us())
    assert set(bench.filling.spans) == {(Entity.TERMINAL, key) for key in TERMINALS}
    assert why_refused(FURTHER, bench.book.kept()) == ""


def test_a_run_that_was_killed_is_gone_on_with(bench: Bench) -> None:
    bench.filling.fails_at = "m3"
    with pytest.raises(Transient, match="killed"):
        bench.run(BOTH)
    assert not bench.filling.is_held
    halted = bench.book.views[BOTH.name]
    assert (halted.status, halted.place, halted.entities) == (ViewStatus.FILLING, Place(Entity.TERMINAL, "m1"), 4)
    assert "filling, 4 entities done" in why_refused(BOTH, bench.book.kept())
    bench.filling.fails_at, bench.filling.calls = "", []
    assert bench.run(BOTH).entities == 7
    assert bench.filling.calls == [(Entity.TERMINAL, "m1"), (Entity.TERMINAL, "m3"), (Entity.TERMINAL, "m4")]
    assert {key: len(spans) for key, spans in bench.filling.spans.items() if len(spans) > 1} == {
        (Entity.TERMINAL, "m2"): 2
    }


def test_one_killed_while_it_waited_for_writers_waits_again(bench: Bench) -> None:
    bench.book.keep(KeptView.of(FURTHER, ViewStatus.DECLARED, 1))
    bench.run(FURTHER)
    assert bench.filling.calls[0] == "waited"


def test_a_complete_view_is_looked_through_again_and_stays_what_it_was(bench: Bench) -> None:
    first = bench.run(FURTHER)
    bench.clock.time_us += 1
    bench.filling.keys[Entity.TERMINAL].append("m9")  # a writer of an earlier release made it
    bench.told.clear()
    assert bench.run(FURTHER) == first == bench.book.views[FURTHER.name]
    assert bench.told[-1] == (6, 60, 6)
    assert (Entity.TERMINAL, "m9") in bench.filling.spans


def test_a_view_within_what_is_kept_is_complete_at_once(bench: Bench) -> None:
    assert bench.run(HANDBOOK_V1).status is ViewStatus.COMPLETE
    assert bench.filling.calls == []
    bench.run(BOTH)
    bench.filling.calls.clear()
    assert bench.run(FURTHER).status is ViewStatus.COMPLETE
    assert bench.filling.calls == []


def test_state_is_brought_to_all_that_is_declared(bench: Bench) -> None:
    longest = replace(FURTHER, name="longest-v1", features=(replace(FAR, window_us=80 * US_PER_DAY),))
    bench.book.keep(KeptView.of(longest, ViewStatus.DECLARED, 1))
    bench.run(FURTHER)
    assert {span for spans in bench.filling.spans.values() for span in spans} == {Span("longest-v1", 94 * US_PER_DAY)}
    assert "longest-v1" in why_refused(longest, bench.book.kept())


def test_a_changed_definition_and_a_second_filler_are_refused(bench: Bench) -> None:
    bench.run(FURTHER)
    changed = replace(FURTHER, features=(replace(FAR, window_us=61 * US_PER_DAY),))
    with pytest.raises(Conflict, match="further-v1 cannot be filled: its definition"):
        bench.run(changed)
    bench.filling.is_held = True
    with pytest.raises(Conflict, match="somebody else"):
        bench.run(FURTHER)


def views_of(records: Sequence[object]) -> list[str]:
    assert all(isinstance(one, Decided) for one in records)
    return [one.record.view for one in records if isinstance(one, Decided)]


def test_a_view_decides_on_state_that_reaches_back_far_enough_for_it() -> None:
    ledger = FakeLedger()
    scoring(ledger).decide([transaction(1, 0)])
    second = FixedScorers(LinearScorer("second", 2, HANDBOOK_V1))
    assert views_of(scoring(ledger, second).decide([transaction(2, US_PER_DAY)])) == [HANDBOOK_V1.name]
    assert views_of(scoring(ledger).decide([transaction(3, 2 * US_PER_DAY)])) == [CARD_V1.name]


def test_one_that_looks_further_back_is_refused_and_changes_nothing() -> None:
    ledger = FakeLedger()
    scoring(ledger).decide([transaction(1, 0)])
    further = FixedScorers(LinearScorer("further", 3, FURTHER))
    (refused,) = scoring(ledger, further).decide([transaction(2, US_PER_DAY)])
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, BrokenInvariant)
    assert "complete for" in str(refused.error)
    assert views_of(scoring(ledger).decide([transaction(2, US_PER_DAY)])) == [CARD_V1.name]
