"""Runs a function under its retry policy.

A call whose worker died is no failure of the function: it is run again on another worker, uncounted, until it ends.
That keeps the promise that a killed worker loses no event.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from twin.host.bindings import Function, RetryPolicy
from twin.host.generation import Attempt, Result

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
# The cloud spreads retries; by how much it does not say.
JITTER = 0.2


def delay_s(policy: RetryPolicy, attempt: int, chance: random.Random) -> float:
    """Seconds to wait before retry `attempt` (1 for the first).

    A fixed delay is always the same. Exponential back-off starts at the minimum, doubles, is spread by up to a fifth
    and never exceeds the maximum.
    """
    if policy.strategy == "fixed_delay":
        return policy.minimum_s
    # 2**30 times anything is over every maximum; a larger exponent would only overflow.
    grown = policy.minimum_s * 2.0 ** min(attempt - 1, 30)
    return float(min(policy.maximum_s, grown * (1 + chance.uniform(0, JITTER))))


async def run_attempts(
    function: Function, invoke: Callable[[Attempt], Awaitable[Result]], stopping: asyncio.Event, chance: random.Random
) -> bool:
    """Invoke until success, or until the policy is exhausted.

    Args:
        function: Whose policy; without one there is a single attempt.
        invoke: Runs the function once.
        stopping: Set when the host stops: no further attempt begins.
        chance: Spreads back-off delays.

    Returns:
        True when the policy has come to its end, successfully or not; False when the host stopped first, so that
        nothing may be noted as done.
    """
    policy = function.retry
    attempt = Attempt(maximum=0 if policy is None else policy.maximum)
    lost_pause_s = FIRST_PAUSE_S
    while True:
        result = await invoke(attempt)
        if result.error is None:
            return True
        if result.lost:
            if await _stopped_within(stopping, lost_pause_s):
                return False
            lost_pause_s = min(lost_pause_s * 2, LONGEST_PAUSE_S)
            continue
        if policy is None:
            return True
        count = attempt.count + 1
        if 0 <= policy.maximum < count:
            log.error("'Functions.%s' failed %d times; its retry policy is exhausted", function.name, count)
            return True
        wait_s = delay_s(policy, count, chance)
        log.warning("'Functions.%s' is tried again in %.3g s (retry %d)", function.name, wait_s, count)
        if await _stopped_within(stopping, wait_s):
            return False
        attempt = Attempt(count, policy.maximum, result.error)


async def _stopped_within(stopping: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return False
    return True
