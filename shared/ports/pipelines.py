"""Runs, leases, triggers and notices, as ports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from shared.domain.pipeline import Evidence, Notice, OpenTrigger, Run, RunStatus, Trigger


class PipelineLog(Protocol):
    """What pipelines did and measured. Every method raises Transient if the store cannot be reached now."""

    def begin(self, run: Run) -> bool:
        """Note that a run starts; False, and nothing changes, if a run of this id is noted already."""
        ...

    def end(self, run_id: str, status: RunStatus, ended_at_us: int, error: str, details: Evidence) -> bool:
        """Note how a run ended; returns whether this call did. The first end of a run stays."""
        ...

    def note(self, run_id: str, task: str, metrics: Mapping[str, float], recorded_at_us: int) -> None:
        """Keep what a task of a run measured. Idempotent: the first value of each metric stays."""
        ...

    def find(self, run_id: str) -> Run | None:
        """A run by its id."""
        ...

    def recent(self, pipeline: str, limit: int, status: RunStatus | None = None) -> Sequence[Run]:
        """The last runs of a pipeline by their start, newest first; of one status only if it is given."""
        ...


class Leases(Protocol):
    """Who alone may do something. Every method raises Transient if the store cannot be reached now."""

    def acquire(self, name: str, holder: str, now_us: int, duration_us: int) -> bool:
        """Take a lease that is free, has expired, or is the holder's already (then it is renewed)."""
        ...

    def release(self, name: str, holder: str) -> bool:
        """Give a lease back; False if it is not the holder's any more."""
        ...

    def holder(self, name: str, now_us: int) -> str | None:
        """Who holds it now."""
        ...


class Triggers(Protocol):
    """Reasons to retrain. Every method raises Transient if the store cannot be reached now."""

    def open(self, trigger: Trigger) -> int | None:
        """Keep a trigger and return its number; None if one of its cause and subject is open or claimed."""
        ...

    def claim(self, run_id: str, now_us: int) -> OpenTrigger | None:
        """Take the most urgent open one, the oldest of these; claimed once, whatever the number of instances."""
        ...

    def close(self, trigger_id: int, *, done: bool, outcome: str, now_us: int) -> bool:
        """Close one that is open or claimed, as done or dismissed; returns whether this call did."""
        ...

    def unfinished(self) -> Sequence[OpenTrigger]:
        """Those that are open or claimed, the most urgent first."""
        ...

    def reopen(self, trigger_id: int) -> bool:
        """Give a claimed one back, because its run died or was put off."""
        ...


class Notices(Protocol):
    """Where notices are left to be sent."""

    def put(self, notice: Notice) -> bool:
        """Leave a notice for every channel that is configured; False if its key was told before.

        Idempotent. It is sent later by a timer, so a channel that fails delays nobody.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...
