"""Delays of retry policies, and the loop that applies them."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.host.attempts import delay_s, run_attempts
from twin.host.bindings import Function, HubTrigger, RetryPolicy
from twin.host.generation import Attempt, Result

TRIGGER = HubTrigger("events", "hub", "EH", "$Default", many=True, data_type="binary")


def function(policy: RetryPolicy | None) -> Function:
    return Function("f", "id", TRIGGER, (), policy, ())


@given(
    low=st.floats(0, 1000),
    more=st.floats(0, 1000),
    attempt=st.integers(1, 10_000),
    seed=st.integers(0, 100),
)
def test_back_off_stays_between_its_bounds(low: float, more: float, attempt: int, seed: int) -> None:
    policy = RetryPolicy(-1, "exponential_backoff", low, low + more)
    delay = delay_s(policy, attempt, random.Random(seed))
    assert low <= delay <= low + more


def test_back_off_doubles_and_fixed_delay_does_not() -> None:
    class Still(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return a

    growing = RetryPolicy(5, "exponential_backoff", 1.0, 10.0)
    assert [delay_s(growing, attempt, Still()) for attempt in range(1, 6)] == [1, 2, 4, 8, 10]
    fixed = RetryPolicy(5, "fixed_delay", 3.0, 3.0)
    assert [delay_s(fixed, attempt, Still()) for attempt in range(1, 4)] == [3, 3, 3]


@pytest.mark.parametrize(
    ("policy", "results", "ended", "counts"),
    [
        (None, [Result("x")], True, [0]),
        (None, [Result("x", lost=True), Result(None)], True, [0, 0]),
        (RetryPolicy(2, "fixed_delay", 0, 0), [Result("x")] * 3, True, [0, 1, 2]),
        (RetryPolicy(2, "fixed_delay", 0, 0), [Result("x"), Result("y", lost=True), Result(None)], True, [0, 1, 1]),
        (RetryPolicy(0, "fixed_delay", 0, 0), [Result("x")], True, [0]),
        (RetryPolicy(-1, "fixed_delay", 0, 0), [Result("x")] * 9 + [Result(None)], True, list(range(10))),
    ],
)
def test_attempts_are_counted_and_lost_calls_are_not(
    policy: RetryPolicy | None, results: list[Result], ended: bool, counts: list[int]
) -> None:
    seen: list[int] = []

    async def invoke(attempt: Attempt) -> Result:
        seen.append(attempt.count)
        return results[len(seen) - 1]

    async def run() -> bool:
        return await run_attempts(function(policy), invoke, asyncio.Event(), random.Random(1))

    assert asyncio.run(run()) is ended
    assert seen == counts


def test_no_attempt_begins_once_the_host_stops() -> None:
    seen: list[int] = []

    async def run() -> bool:
        stopping = asyncio.Event()

        async def invoke(attempt: Attempt) -> Result:
            seen.append(attempt.count)
            stopping.set()
            return Result("x")

        return await run_attempts(function(RetryPolicy(-1, "fixed_delay", 60, 60)), invoke, stopping, random.Random(1))

    assert asyncio.run(run()) is False
    assert seen == [0]
