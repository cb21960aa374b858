"""The registry and its queue in memory, by the rules of their ports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from shared.domain.bundle import Bundle
from shared.domain.bundle_pointer import Pointer, Role
from shared.domain.errors import NotFound, TollgateError
from shared.domain.registry import RegistryRecord, RunRecord, record_key, write_record
from shared.domain.registry_rows import MeasuredRows
from shared.ports.registry import WaitingRecord


@dataclass
class FakeRecords:
    """Records left and waiting; `fault` is raised by every method while it is set."""

    waiting: dict[int, WaitingRecord] = field(default_factory=dict)
    keys: dict[int, str] = field(default_factory=dict)
    next_at_us: dict[int, int] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    numbers: int = 0
    fault: TollgateError | None = None

    def enqueue(self, record: RegistryRecord) -> bool:
        _fail(self.fault)
        key = record_key(record)
        if any(self.keys[number] == key for number in self.waiting):
            return False
        self.numbers += 1
        self.keys[self.numbers] = key
        self.waiting[self.numbers] = WaitingRecord(self.numbers, write_record(record), 0)
        self.next_at_us[self.numbers] = 0
        return True

    def due(self, now_us: int, limit: int) -> Sequence[WaitingRecord]:
        _fail(self.fault)
        return [kept for number, kept in sorted(self.waiting.items()) if self.next_at_us[number] <= now_us][:limit]

    def settle(self, number: int) -> None:
        _fail(self.fault)
        self.waiting.pop(number, None)

    def put_off(self, number: int, next_at_us: int, error: str) -> None:
        _fail(self.fault)
        if (kept := self.waiting.get(number)) is not None:
            self.waiting[number] = replace(kept, attempts=kept.attempts + 1)
            self.next_at_us[number] = next_at_us
            self.errors[number] = error

    def count(self) -> int:
        _fail(self.fault)
        return len(self.waiting)


@dataclass
class FakeRegistry:
    """Runs by id with the names of their files, and who plays which part; `fault` as above.

    `slow` is called with each run that is written.
    """

    runs: dict[str, RunRecord] = field(default_factory=dict)
    files: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)
    roles: dict[Role, Pointer] = field(default_factory=dict)
    slow: Callable[[], None] = lambda: None
    fault: TollgateError | None = None

    def has(self, record: RunRecord) -> bool:
        _fail(self.fault)
        return record.run_id in self.runs

    def write(self, record: RunRecord, bundle: Mapping[str, bytes], plots: Mapping[str, bytes]) -> None:
        _fail(self.fault)
        self.slow()
        self.runs[record.run_id] = record
        self.files[record.run_id] = sorted(bundle), sorted(plots)

    def give(self, state: Pointer) -> None:
        _fail(self.fault)
        if state.digest is not None and all(run.bundle_digest != state.digest for run in self.runs.values()):
            raise NotFound("digest", "names no version of the registry")
        known = self.roles.get(state.role)
        if known is None or known.number < state.number:
            self.roles[state.role] = state


@dataclass
class FakeMeasuredRows:
    """Rows by the digest of their bundle; `fault` as above."""

    rows: dict[str, MeasuredRows] = field(default_factory=dict)
    fault: TollgateError | None = None

    def put(self, bundle_digest: str, rows: MeasuredRows) -> None:
        _fail(self.fault)
        self.rows.setdefault(bundle_digest, rows)

    def get(self, bundle_digest: str) -> MeasuredRows | None:
        _fail(self.fault)
        return self.rows.get(bundle_digest)


@dataclass
class FakePlots:
    """Pictures that say what they were drawn from."""

    def draw(self, bundle: Bundle, rows: MeasuredRows) -> dict[str, bytes]:
        return {"picture.png": f"{bundle.digest} {len(rows.raw)}".encode()}


def _fail(fault: TollgateError | None) -> None:
    if fault is not None:
        raise fault
