"""Runs, leases and triggers in memory, by the rules of their ports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from shared.domain.errors import BrokenInvariant, TollgateError
from shared.domain.pipeline import Evidence, OpenTrigger, Run, RunStatus, Trigger


@dataclass
class FakePipelineLog:
    """Runs by id, and metrics by run, task and name; `fault` is raised by every method while it is set."""

    runs: dict[str, Run] = field(default_factory=dict)
    metrics: dict[tuple[str, str, str], float] = field(default_factory=dict)
    fault: TollgateError | None = None

    def begin(self, run: Run) -> bool:
        _fail(self.fault)
        _check(run)
        return self.runs.setdefault(run.run_id, run) is run

    def end(self, run_id: str, status: RunStatus, ended_at_us: int, error: str, details: Evidence) -> bool:
        _fail(self.fault)
        run = self.runs.get(run_id)
        if run is None or run.status is not RunStatus.RUNNING:
            return False
        ended = replace(
            run, status=status, ended_at_us=ended_at_us, error=error, details={**run.details, **dict(details)}
        )
        _check(ended)
        self.runs[run_id] = ended
        return True

    def note(self, run_id: str, task: str, metrics: Mapping[str, float], recorded_at_us: int) -> None:
        del recorded_at_us
        _fail(self.fault)
        for name, value in metrics.items():
            self.metrics.setdefault((run_id, task, name), float(value))

    def find(self, run_id: str) -> Run | None:
        _fail(self.fault)
        return self.runs.get(run_id)

    def recent(self, pipeline: str, limit: int, status: RunStatus | None = None) -> Sequence[Run]:
        _fail(self.fault)
        found = [run for run in self.runs.values() if run.pipeline == pipeline and status in (None, run.status)]
        return sorted(found, key=lambda run: (run.started_at_us, run.run_id), reverse=True)[:limit]


@dataclass
class FakeLeases:
    """Holder and end by name; `fault` is raised by every method while it is set."""

    held: dict[str, tuple[str, int]] = field(default_factory=dict)
    fault: TollgateError | None = None

    def acquire(self, name: str, holder: str, now_us: int, duration_us: int) -> bool:
        _fail(self.fault)
        if duration_us <= 0:
            raise BrokenInvariant("a lease of no length")
        owner, until_us = self.held.get(name, (holder, now_us))
        if owner != holder and until_us > now_us:
            return False
        self.held[name] = holder, now_us + duration_us
        return True

    def release(self, name: str, holder: str) -> bool:
        _fail(self.fault)
        if self.held.get(name, ("", 0))[0] != holder:
            return False
        del self.held[name]
        return True

    def holder(self, name: str, now_us: int) -> str | None:
        _fail(self.fault)
        owner, until_us = self.held.get(name, ("", now_us))
        return owner if until_us > now_us else None


@dataclass
class FakeTriggers:
    """Triggers that are open or claimed, and how the others were closed; `fault` as above."""

    kept: dict[int, OpenTrigger] = field(default_factory=dict)
    closed: dict[int, tuple[bool, str, int]] = field(default_factory=dict)
    fault: TollgateError | None = None

    def open(self, trigger: Trigger) -> int | None:
        _fail(self.fault)
        about = (trigger.cause, trigger.subject)
        if about in {(kept.trigger.cause, kept.trigger.subject) for kept in self.kept.values()}:
            return None
        number = len(self.kept) + len(self.closed) + 1
        self.kept[number] = OpenTrigger(number, trigger)
        return number

    def claim(self, run_id: str, now_us: int) -> OpenTrigger | None:
        del now_us
        taken = next((kept for kept in self.unfinished() if not kept.claimed_by), None)
        if taken is None:
            return None
        self.kept[taken.trigger_id] = replace(taken, claimed_by=run_id)
        return self.kept[taken.trigger_id]

    def close(self, trigger_id: int, *, done: bool, outcome: str, now_us: int) -> bool:
        _fail(self.fault)
        if self.kept.pop(trigger_id, None) is None:
            return False
        self.closed[trigger_id] = done, outcome, now_us
        return True

    def unfinished(self) -> Sequence[OpenTrigger]:
        _fail(self.fault)
        return sorted(
            self.kept.values(), key=lambda kept: (kept.trigger.priority, kept.trigger.created_at_us, kept.trigger_id)
        )

    def reopen(self, trigger_id: int) -> bool:
        _fail(self.fault)
        kept = self.kept.get(trigger_id)
        if kept is None or not kept.claimed_by:
            return False
        self.kept[trigger_id] = replace(kept, claimed_by="")
        return True


def _check(run: Run) -> None:
    if (run.ended_at_us is None) is not (run.status is RunStatus.RUNNING):
        raise BrokenInvariant("a run has an end exactly if it does not run")


def _fail(fault: TollgateError | None) -> None:
    if fault is not None:
        raise fault
