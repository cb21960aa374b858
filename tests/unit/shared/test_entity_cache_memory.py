"""What the cache of states counts is what memory follows: never less than the states take, and not much more."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shared.adapters.entity_cache import CachedEntity, EntityCache
from shared.domain.entity_state import EntityState, LaterLabel, fold
from shared.domain.entity_state_codec import read_state, state_bytes
from shared.domain.entity_state_layout import BASE_LAYOUT
from shared.domain.feature_view import Entity
from shared.domain.features import PastTransaction
from shared.domain.identifiers import TransactionId
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import Label, LabelSource, Verdict
from shared.domain.surrogates import Surrogate

NOW_US = 1_790_000_000_000_000
MAKERS = ("*/shared/domain/*", "*/shared/adapters/entity_cache.py", "<string>", __file__)
"""Where what is kept is made; named tuples are made by code without a file."""

BOUND = 120_000
MOST_OVERSTATED = 1.7
"""States of many short tiles take least of what is counted for them."""


@contextmanager
def traced() -> Iterator[None]:
    """Python's allocations are traced."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def taken_bytes() -> int:
    """Bytes that states and their keys take, whatever other threads and pytest itself take meanwhile."""
    gc.collect()
    makers = [tracemalloc.Filter(inclusive=True, filename_pattern=pattern) for pattern in MAKERS]
    statistics = tracemalloc.take_snapshot().filter_traces(makers).statistics("filename")
    return sum(found.size for found in statistics)


def entity(rng: random.Random, key: int, n_events: int, days: int, *, is_stored: bool) -> CachedEntity:
    """An entity with labels for some transactions, folded or as it comes from the database, and read once."""
    times = sorted(NOW_US - rng.randrange(days * US_PER_DAY) for _ in range(n_events))
    state = EntityState.empty(BASE_LAYOUT, Entity.CUSTOMER)
    for number, time_us in enumerate(times):
        name = TransactionId(f"transaction-{key}-{number}")
        event, labels = PastTransaction(name, time_us, rng.randrange(100, 30_000)), []
        if number % 4 == 0:
            known_us = min(NOW_US, time_us + US_PER_DAY)
            genuine = Label(name, Verdict.GENUINE, LabelSource.ANALYST, time_us, known_us, 100, "test")
            labels.append(LaterLabel(time_us, genuine))
        state = fold(state, [event], labels).state
    if is_stored:
        state = read_state(*state_bytes(state))
    for part in state.tiles.parts:
        part.as_of(NOW_US - US_PER_DAY // 2)
    return CachedEntity(state, Surrogate(f"k1.{key:043d}"))


@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize(("n_events", "days"), [(1, 1), (6, 90), (40, 100), (200, 1)])
def test_what_is_counted_is_what_is_taken(n_events: int, days: int, is_stored: bool) -> None:
    rng, cache = random.Random(n_events), EntityCache(BOUND)
    with traced():
        key = 0
        while len(cache) == key:  # until the first one has to go
            cache.put(Entity.CUSTOMER, f"customer-{key:08d}", entity(rng, key, n_events, days, is_stored=is_stored))
            key += 1
        assert BOUND * 0.8 < cache.n_bytes <= BOUND
        taken = taken_bytes()
        assert taken <= cache.n_bytes <= MOST_OVERSTATED * taken


def test_what_is_taken_stays_within_the_bound_however_many_entities_come_and_grow() -> None:
    rng, cache = random.Random(7), EntityCache(BOUND)
    with traced():
        for round_ in range(3):
            for key in range(80):
                n_events = rng.randrange(1, 20)
                name = f"c-{key}" if key % 3 else f"c-{key}-{round_}"  # some come again with another state
                cache.put(Entity.CUSTOMER, name, entity(rng, key, n_events, 100, is_stored=key % 2 == 0))
            assert taken_bytes() <= BOUND
        cache.clear()
        assert taken_bytes() < BOUND * 0.05
