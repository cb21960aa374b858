"""The checks of a judgement as they are made; what was not made has not passed."""

from __future__ import annotations

import math
from typing import Final

from shared.domain.evaluation import Interval
from shared.domain.promotion import Check, CheckName

COMPARISONS: Final = frozenset({CheckName.FRESHNESS, CheckName.GAIN, CheckName.LOSS, CheckName.SEGMENTS})
"""Checks that there are only with a champion."""


class Findings:
    """Checks, each made once."""

    def __init__(self) -> None:
        self._made: dict[CheckName, Check] = {}

    def add(
        self,
        name: CheckName,
        passed: bool,
        required: str,
        why: str,
        *,
        value: float | None = None,
        ends: Interval | None = None,
    ) -> bool:
        """Note a check; returns whether it passed. A figure that is not finite is left out of the document."""
        self.put(Check(name, value, ends, required, passed, why))
        return passed

    def put(self, check: Check) -> None:
        """Note a check that is made already."""
        ends = check.interval
        value = None if check.value is None or not math.isfinite(check.value) else float(check.value)
        kept = None if ends is None or not (math.isfinite(ends.low) and math.isfinite(ends.high)) else ends
        self._made[check.name] = Check(check.name, value, kept, check.required, bool(check.passed), check.why)

    def passed(self, *names: CheckName) -> bool:
        """Whether all of these were made and passed."""
        return all(name in self._made and self._made[name].passed for name in names)

    def finished(self, *, compared: bool) -> tuple[Check, ...]:
        """All checks in their order; one that was not made has failed, and says what stood in its way.

        Args:
            compared: Whether there is a champion.
        """
        failed = [name for name in CheckName if name in self._made and not self._made[name].passed]
        found = []
        for name in CheckName:
            if name in COMPARISONS and not compared:
                continue
            why = f"not judged: {', '.join(failed) or 'nothing'} stood in the way"
            found.append(self._made.get(name, Check(name, None, None, "to be judged", False, why)))
        return tuple(found)
