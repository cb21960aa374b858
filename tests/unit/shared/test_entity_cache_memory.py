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
BOUND = 120_000
MOST_OVERSTATED = 1.7
"""States of many short tiles take least of what is counted for them."""


class Traced:
    """What Python has taken since tracing began."""

    def __init__(self) -> None:
        self._before = tracemalloc.get_traced_memory()[0]

    @property
    def n_bytes(self) -> int:
        """Bytes, without what only waits to be collected."""
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - self._before


@contextmanager
def traced() -> Iterator[Traced]:
    """Python's allocations are traced."""
    gc.collect()
    tracemalloc.start()
    try:
        yield Traced()
    finally:
        tracemalloc.stop()


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
@pytest.mark.parametrize(("n_events", "days"), [(1, 1), (6, 90), (40, 100), (300, 1)])
def test_what_is_counted_is_what_is_taken(n_events: int, days: int, is_stored: bool) -> None:
    rng, cache = random.Random(n_events), EntityCache(BOUND)
    with traced() as taken:
        key = 0
        while len(cache) == key:  # until the first one has to go
            cache.put(Entity.CUSTOMER, f"customer-{key:08d}", entity(rng, key, n_events, days, is_stored=is_stored))
            key += 1
        assert BOUND * 0.85 < cache.n_bytes <= BOUND
        assert taken.n_bytes <= cache.n_bytes <= MOST_OVERSTATED * taken.n_bytes


def test_what_is_taken_stays_within_the_bound_however_many_entities_come_and_grow() -> None:
    rng, cache = random.Random(7), EntityCache(BOUND)
    with traced() as taken:
        for round_ in range(4):
            for key in range(100):
                n_events = rng.randrange(1, 20)
                name = f"c-{key}" if key % 3 else f"c-{key}-{round_}"  # some come again with another state
                cache.put(Entity.CUSTOMER, name, entity(rng, key, n_events, 100, is_stored=key % 2 == 0))
            assert taken.n_bytes <= BOUND
        cache.clear()
        assert taken.n_bytes < BOUND * 0.1
