"""The cache of states: bounded by bytes, the one used longest ago goes first."""

from __future__ import annotations

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from shared.adapters.entity_cache import CachedEntity, EntityCache
from shared.domain.entity_state import EntityState
from shared.domain.entity_state_layout import BASE_LAYOUT
from shared.domain.feature_view import Entity
from shared.domain.surrogates import Surrogate

SIZE = EntityState.empty(BASE_LAYOUT, Entity.CUSTOMER).n_bytes


def cached(number: int) -> CachedEntity:
    state = EntityState.empty(BASE_LAYOUT, Entity.CUSTOMER)
    return CachedEntity(state._replace(header=state.header._replace(version=number)), Surrogate("k1.x"))


@given(st.integers(1, 5), st.lists(st.tuples(st.booleans(), st.sampled_from("abcdefg")), max_size=60))
def test_it_behaves_like_the_plainest_one(room: int, uses: list[tuple[bool, str]]) -> None:
    cache = EntityCache(room * SIZE)
    model: OrderedDict[str, int] = OrderedDict()
    for number, (is_put, key) in enumerate(uses):
        if is_put:
            cache.put(Entity.CUSTOMER, key, cached(number))
            model.pop(key, None)
            model[key] = number
            if len(model) > room:
                model.popitem(last=False)
        else:
            found = cache.get(Entity.CUSTOMER, key)
            assert (None if found is None else found.state.header.version) == model.get(key)
            if key in model:
                model.move_to_end(key)
        assert (len(cache), cache.n_bytes) == (len(model), len(model) * SIZE)


def test_kinds_of_entity_do_not_mix() -> None:
    cache = EntityCache(10 * SIZE)
    cache.put(Entity.CUSTOMER, "x", cached(1))
    assert cache.get(Entity.TERMINAL, "x") is None
    cache.clear()
    assert (cache.get(Entity.CUSTOMER, "x"), len(cache), cache.n_bytes) == (None, 0, 0)


def test_what_is_larger_than_the_bound_is_not_kept_and_drops_nothing_else() -> None:
    cache = EntityCache(SIZE)
    cache.put(Entity.CUSTOMER, "small", cached(1))
    large = EntityCache(SIZE - 1)
    large.put(Entity.CUSTOMER, "x", cached(1))
    assert (len(cache), len(large), large.n_bytes) == (1, 0, 0)
