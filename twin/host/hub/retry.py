"""How long to wait before a function is tried again."""

from __future__ import annotations

import random

from twin.host.bindings import RetryPolicy

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
