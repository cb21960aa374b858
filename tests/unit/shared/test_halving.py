"""Halving a batch finds exactly the items at fault, does the rest once, and lets what passes by itself through."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import BrokenInvariant, Transient
from shared.services.halving import halved


@given(st.lists(st.booleans(), max_size=40))
def test_each_item_is_answered_once_and_only_those_at_fault_are_refused(bad: list[bool]) -> None:
    done: list[int] = []

    def work(part: Sequence[int]) -> list[str]:
        if any(bad[place] for place in part):
            raise BrokenInvariant("one of these")
        done.extend(part)
        return [f"done {place}" for place in part]

    answers = halved(range(len(bad)), work, lambda place, _: f"refused {place}", BrokenInvariant)
    assert answers == [f"{'refused' if fault else 'done'} {place}" for place, fault in enumerate(bad)]
    assert done == [place for place, fault in enumerate(bad) if not fault]


@pytest.mark.parametrize("error", [Transient("away"), RuntimeError("another")])
def test_what_halving_does_not_help_against_is_raised_at_once(error: Exception) -> None:
    calls = 0

    def work(_: Sequence[int]) -> list[int]:
        nonlocal calls
        calls += 1
        raise error

    with pytest.raises(type(error)):
        halved(range(8), work, lambda place, _: place, BrokenInvariant)
    assert calls == 1


def test_a_transient_fault_is_never_narrowed_down() -> None:
    def work(_: Sequence[int]) -> list[int]:
        raise Transient("away")

    with pytest.raises(Transient):
        halved(range(8), work, lambda place, _: place, Exception)
