"""What is sent: good bodies are accepted, each malformed kind breaks its rule, and every rule has a kind."""

from __future__ import annotations

import ast
import inspect
import json
from collections import Counter
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain import event, identifiers, instants, transaction
from shared.domain.canonical import transaction_digest
from shared.domain.errors import InvalidInput
from shared.domain.event import parse_object
from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.labels import parse_label
from shared.domain.transaction import Acceptance, Transaction, parse_transaction
from simulator.batch import TransactionBatch
from simulator.changes import Fault, FeedFault, Span
from simulator.config import WorldConfig
from simulator.errors import BadOrder
from simulator.malformed import KINDS, Kind
from simulator.wire import QUIET, Disturbance, Sending, WireEvent, disturbed, label_bodies, played, transaction_body
from simulator.world import World

CONFIG = WorldConfig(customers=200, merchants=100, cities=3)
BAD = Disturbance(repeated=0.10, conflicting=0.03, late=0.05, malformed=0.08, shuffle_s=90)


@pytest.fixture(scope="module")
def world() -> World:
    return World.create(CONFIG, np.random.default_rng(2))


@pytest.fixture(scope="module")
def batch(world: World) -> TransactionBatch:
    return next(world.days(20, 1))


def parsed(sent: WireEvent) -> Transaction:
    return parse_transaction(parse_object(sent.body), Acceptance("EUR", sent.sent_at_us))


def test_undisturbed_events_are_the_transactions_in_order(batch: TransactionBatch) -> None:
    events = disturbed(batch, QUIET, np.random.default_rng(1))
    assert [parsed(sent) for sent in events] == list(batch.transactions())
    assert [sent.sent_at_us for sent in events] == batch.event_time_us.tolist()
    assert {sent.sending for sent in events} == {Sending.GOOD}


def test_the_same_seed_gives_the_same_bytes(batch: TransactionBatch) -> None:
    one, two, other = (disturbed(batch, BAD, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == two
    assert one != other


def test_every_event_is_what_it_says(batch: TransactionBatch) -> None:
    """Played against the rules of ingestion: accepted, absorbed, refused or a dead letter, as each event says."""
    digests: dict[str, bytes] = {}
    outcomes: Counter[Sending] = Counter()
    events = disturbed(batch, BAD, np.random.default_rng(1))
    assert [sent.sent_at_us for sent in events] == sorted(sent.sent_at_us for sent in events)
    for sent in events:
        outcomes[sent.sending] += 1
        if sent.sending is Sending.MALFORMED:
            with pytest.raises(InvalidInput) as caught:
                parsed(sent)
            assert caught.value.field == sent.field
            assert sent.fault
            assert sent.transaction_id not in digests
            continue
        decided = parsed(sent)
        assert decided.transaction_id == sent.transaction_id
        digest = transaction_digest(decided)
        match sent.sending:
            case Sending.GOOD | Sending.LATE:
                assert sent.transaction_id not in digests
                digests[sent.transaction_id] = digest
                assert (sent.sent_at_us - decided.event_time_us > US_PER_HOUR // 3) == (sent.sending is Sending.LATE)
            case Sending.REPEATED:
                assert digests[sent.transaction_id] == digest
            case Sending.CONFLICTING:
                assert digests[sent.transaction_id] != digest
    assert len(digests) == len(batch)
    shares = {sending: outcomes[sending] / len(batch) for sending in Sending}
    assert shares[Sending.REPEATED] == pytest.approx(BAD.repeated, abs=0.04)
    assert shares[Sending.CONFLICTING] == pytest.approx(BAD.conflicting, abs=0.025)
    assert shares[Sending.LATE] == pytest.approx(BAD.late, abs=0.03)
    assert shares[Sending.MALFORMED] == pytest.approx(BAD.malformed, abs=0.04)


def test_repeats_are_written_differently_half_of_the_time(batch: TransactionBatch) -> None:
    events = disturbed(batch, Disturbance(repeated=1.0), np.random.default_rng(1))
    first = {sent.transaction_id: sent.body for sent in events if sent.sending is Sending.GOOD}
    equal = [first[sent.transaction_id] == sent.body for sent in events if sent.sending is Sending.REPEATED]
    assert 0.4 < np.mean(equal) < 0.6


def test_events_are_out_of_order_when_shuffled(batch: TransactionBatch) -> None:
    def disorder(shuffle_s: float) -> int:
        events = disturbed(batch, Disturbance(shuffle_s=shuffle_s), np.random.default_rng(1))
        times = [parsed(sent).event_time_us for sent in events]
        return sum(one > two for one, two in pairwise(times))

    assert disorder(0) == 0
    assert disorder(600) > 20


def test_late_events_stay_within_the_allowed_lateness(batch: TransactionBatch) -> None:
    most = Disturbance(late=1.0, most_late_s=6.9 * 86_400)
    events = disturbed(batch, most, np.random.default_rng(1))
    lateness = [sent.sent_at_us - parsed(sent).event_time_us for sent in events]
    assert max(lateness) > 6 * US_PER_DAY
    assert min(lateness) > US_PER_HOUR // 3


def test_days_are_played_in_the_order_of_sending(world: World) -> None:
    whole = list(played(world, 20, 4, BAD, np.random.default_rng(1)))
    times = [sent.sent_at_us for sent in whole]
    assert times == sorted(times)
    rng = np.random.default_rng(1)
    parts = [sent for batch in world.days(20, 4) for sent in disturbed(batch, BAD, rng)]
    assert Counter(whole) == Counter(parts)
    days = [parsed(sent).event_time_us // US_PER_DAY for sent in whole if sent.sending is Sending.LATE]
    assert days != sorted(days)  # late ones stand among those of later days
    assert list(played(world, 20, 0, BAD, rng)) == []


def test_an_id_that_a_broken_feed_gives_twice_conflicts() -> None:
    fault = FeedFault(Span(CONFIG.first_date), Fault.DUPLICATED_IDS, share=0.3)
    world = World.create(WorldConfig(customers=200, merchants=100, changes=(fault,)), np.random.default_rng(2))
    batch = next(world.days(20, 1))
    events = disturbed(batch, Disturbance(late=0.3, shuffle_s=600, repeated=0.2), np.random.default_rng(1))
    seen: dict[str, bytes] = {}
    conflicts = 0
    for sent in events:
        digest = transaction_digest(parsed(sent))
        if sent.sending in {Sending.GOOD, Sending.LATE}:
            assert sent.transaction_id not in seen
            seen[sent.transaction_id] = digest
        else:
            assert (seen[sent.transaction_id] == digest) == (sent.sending is Sending.REPEATED)
            conflicts += sent.sending is Sending.CONFLICTING
    assert conflicts > 50


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_malformed_kind_breaks_the_rule_of_its_field(kind: Kind, batch: TransactionBatch) -> None:
    rules = set()
    for row in range(5):
        good = batch.transaction(row)
        assert parse_transaction(parse_object(transaction_body(good)), Acceptance("EUR", good.event_time_us)) == good
        body = kind.body(json.loads(transaction_body(good)), good.event_time_us)
        with pytest.raises(InvalidInput) as caught:
            parse_transaction(parse_object(body), Acceptance("EUR", good.event_time_us))
        assert caught.value.field == kind.field
        rules.add(caught.value.rule.split(" (character")[0])
    assert len(rules) == 1


def test_every_rule_about_a_transaction_is_broken_by_some_kind(batch: TransactionBatch) -> None:
    good = batch.transaction(0)
    broken: set[tuple[str, int]] = set()
    for kind in KINDS:
        body = kind.body(json.loads(transaction_body(good)), good.event_time_us)
        with pytest.raises(InvalidInput) as caught:
            parse_transaction(parse_object(body), Acceptance("EUR", good.event_time_us))
        last = caught.traceback[-1]
        broken.add((last.frame.f_globals["__name__"], last.lineno + 1))
    missed = [
        f"{module.__name__}:{lines.start}"
        for module in (event, identifiers, instants, transaction)
        for lines in raises(module)
        if not any(name == module.__name__ and line in lines for name, line in broken)
    ]
    assert missed == []


def raises(module: ModuleType) -> list[range]:
    """The lines of every statement of a module that raises InvalidInput."""
    tree = ast.parse(inspect.getsource(module))
    return [
        range(node.lineno, (node.end_lineno or node.lineno) + 1)
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and getattr(node.exc.func, "id", "") == "InvalidInput"
    ]


def test_names_of_malformed_kinds_are_unique() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_label_bodies_are_accepted_when_they_are_known(world: World) -> None:
    begin = CONFIG.first_us
    labels = world.labels_known_between(begin, begin + 40 * US_PER_DAY)
    bodies = list(label_bodies(labels))
    assert len(bodies) == len(labels) > 20
    for (known_at_us, body), label in zip(bodies, labels.labels(), strict=True):
        assert parse_label(parse_object(body), known_at_us) == label


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        Disturbance,
        repeated=st.floats(0, 1),
        conflicting=st.floats(0, 1),
        late=st.floats(0, 1),
        malformed=st.floats(0, 1),
        shuffle_s=st.floats(0, 3_600),
        repeat_after_s=st.floats(0, 3_600),
        most_late_s=st.floats(3_600, 6.9 * 86_400),
    ),
    st.integers(0, 2**32),
)
def test_no_transaction_is_lost_or_sent_too_late(disturbance: Disturbance, seed: int) -> None:
    world = World.create(WorldConfig(customers=20, merchants=40, cities=2), np.random.default_rng(seed))
    batch = next(world.days(3, 1))
    events = disturbed(batch, disturbance, np.random.default_rng(seed))
    first = [sent for sent in events if sent.sending in {Sending.GOOD, Sending.LATE}]
    assert {parsed(sent) for sent in first} == set(batch.transactions())
    position = {sent.transaction_id: place for place, sent in enumerate(events) if sent in first}
    for place, sent in enumerate(events):
        if sent.sending in {Sending.REPEATED, Sending.CONFLICTING}:
            parsed(sent)
            assert place > position[sent.transaction_id]


@pytest.mark.parametrize(
    "wrong", [{"late": 1.5}, {"shuffle_s": -1.0}, {"repeat_after_s": float("nan")}, {"most_late_s": 7 * 86_400.0}]
)
def test_disturbances_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadOrder, match="disturbance"):
        Disturbance(**wrong)
