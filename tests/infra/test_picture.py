"""The documents show the program as it is."""

from __future__ import annotations

from itertools import pairwise

from infra.capacity import LOADS, SERVER_MONTH, Load
from infra.config import POSTGRES_SIZES
from tests.infra import picture


def test_generated_parts_are_current() -> None:
    for path, parts in picture.documents(picture.recorded()).items():
        text = path.read_text(encoding="utf-8")
        assert picture.filled(text, parts) == text, f"{path.name}: run {picture.COMMAND}"


def test_a_larger_load_needs_no_less_of_anything() -> None:
    for private in (False, True):
        loads = [Load(tps, 30, private) for tps in (1, 10, 100, 1_000, 5_000, 10_000)]
        for small, large in pairwise(loads):
            assert small.instances <= large.instances
            assert small.partitions <= large.partitions
            assert small.units <= large.units
            assert list(POSTGRES_SIZES).index(small.server) <= list(POSTGRES_SIZES).index(large.server)
            assert sum(small.costs().values()) <= sum(large.costs().values())


def test_every_server_has_a_price_and_the_loads_fit_the_program() -> None:
    assert SERVER_MONTH.keys() == POSTGRES_SIZES.keys()
    for load in LOADS:
        assert load.server in POSTGRES_SIZES
        assert load.instances <= 1000
        assert load.partitions <= 32
        assert load.units <= 40
