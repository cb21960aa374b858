"""The log of a partition on disk: order, positions, torn tails, damage, retention, group commit."""

from __future__ import annotations

import asyncio
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.broker import partition_log, positions, segments
from twin.broker.errors import LinkError, LogCorrupt
from twin.broker.partition_log import AppendFailed, Cursor, LogLimits, PartitionLog


@dataclass(frozen=True, slots=True)
class Plain:
    """An event that is stored as it is."""

    body: bytes
    header_length: int = 0

    def stamp(self, sequence: int, offset: int, enqueued_ms: int) -> bytes:
        return self.body


@dataclass
class Clock:
    now_ms: int = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@dataclass
class Fixture:
    directory: Path
    limits: LogLimits = field(default_factory=LogLimits)
    clock: Clock = field(default_factory=Clock)

    def open(self) -> PartitionLog:
        return PartitionLog(self.directory, self.limits, self.clock)


def append(log: PartitionLog, *bodies: bytes) -> None:
    outcomes: list[AppendFailed | None] = []
    log.append([Plain(body) for body in bodies], outcomes.append)
    assert outcomes == [None]


def read_all(log: PartitionLog, start: int = 0, limit: int = 100) -> list[bytes]:
    cursor = Cursor(log, start)
    bodies: list[bytes] = []
    while events := cursor.read(limit):
        bodies += [event.payload for event in events]
    cursor.close()
    return bodies


def close(log: PartitionLog) -> None:
    asyncio.run(log.close())


@pytest.fixture
def there(tmp_path: Path) -> Fixture:
    return Fixture(tmp_path / "0")


def test_sequence_offset_and_time(there: Fixture) -> None:
    log = there.open()
    append(log, b"aa", b"bbb")
    there.clock.now_ms -= 500
    append(log, b"c")
    events = Cursor(log, 0).read(10)
    assert [(e.sequence, e.offset, e.payload) for e in events] == [(0, 0, b"aa"), (1, 2, b"bbb"), (2, 5, b"c")]
    assert [e.enqueued_ms for e in events] == [1_000_000] * 3, "enqueued times never go back"
    assert (log.begin_sequence, log.next_sequence, log.last_offset) == (0, 3, 5)
    close(log)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.binary(max_size=400), min_size=1, max_size=20), max_size=12), st.integers(1, 50))
def test_what_was_appended_is_read_after_a_restart(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[bytes]], limit: int
) -> None:
    there = Fixture(tmp_path_factory.mktemp("log"), LogLimits(segment_bytes=2000, tail_bytes=500))
    log = there.open()
    for batch in batches:
        append(log, *batch)
    expected = [body for batch in batches for body in batch]
    assert read_all(log, 0, limit) == expected
    last = (log.next_sequence, log.last_offset, log.last_ms)
    close(log)
    log = there.open()
    assert read_all(log, 0, limit) == expected
    for start in {0, len(expected) // 2, len(expected)}:
        assert read_all(log, start, limit) == expected[start:]
    assert (log.next_sequence, log.last_offset, log.last_ms) == last
    close(log)


def test_memory_keeps_a_bounded_tail(there: Fixture) -> None:
    there.limits = LogLimits(tail_bytes=10_000)
    log = there.open()
    for _ in range(300):
        append(log, bytes(300))
    assert log.recent(0, 10) is None, "old events are on disk only"
    assert log.recent(299, 10)
    assert len(read_all(log)) == 300
    close(log)


@pytest.mark.parametrize("cut", [1, 20, 35, 36, 37, 60])
def test_a_torn_tail_is_cut(there: Fixture, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    log = there.open()
    append(log, b"first", b"second")
    append(log, b"x" * 40)
    close(log)
    path = next(there.directory.glob("*.log"))
    os.truncate(path, path.stat().st_size - cut)
    log = there.open()
    assert read_all(log) == [b"first", b"second"]
    assert "torn tail" in caplog.text
    append(log, b"third")
    close(log)
    log = there.open()
    assert read_all(log) == [b"first", b"second", b"third"]
    close(log)


def test_a_segment_that_never_got_its_header_is_forgotten(there: Fixture) -> None:
    log = there.open()
    append(log, b"kept")
    close(log)
    (there.directory / f"{1:020d}.log").write_bytes(b"TG")
    log = there.open()
    append(log, b"more")
    assert read_all(log) == [b"kept", b"more"]
    close(log)


def _records(path: Path) -> list[int]:
    """The positions of the records of a file."""
    data, found, position = path.read_bytes(), [], 36
    while position < len(data):
        found.append(position)
        position += segments.RECORD_OVERHEAD + struct.unpack_from(">I", data, position)[0]
    return found


def _flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize("at", [0, 1, 5, 9, 20, 40], ids=["length", "length2", "crc", "sequence", "time", "payload"])
def test_damage_in_the_middle_is_named_and_nothing_is_cut(there: Fixture, at: int) -> None:
    log = there.open()
    append(log, *(f"event {number}".encode() for number in range(20)))
    close(log)
    path = next(there.directory.glob("*.log"))
    position = _records(path)[7]
    size = path.stat().st_size
    _flip(path, position + at)
    with pytest.raises(LogCorrupt, match=rf"{path.name}: record 7 at byte {position} is corrupt"):
        there.open()
    assert path.stat().st_size == size


def test_damage_after_the_start_stops_the_reader_with_its_name(there: Fixture) -> None:
    log = there.open()
    append(log, *(b"event" for _ in range(20)))
    close(log)
    log = there.open()
    path = next(there.directory.glob("*.log"))
    _flip(path, _records(path)[3] + 38)
    with pytest.raises(LogCorrupt, match="record 3 "):
        read_all(log)
    assert read_all(log, 4) == [b"event"] * 16
    close(log)


def test_a_missing_segment_is_named(there: Fixture) -> None:
    there.limits = LogLimits(segment_bytes=200)
    log = there.open()
    for _ in range(30):
        append(log, bytes(50))
    close(log)
    paths = sorted(there.directory.glob("*.log"))
    assert len(paths) > 4
    paths[2].unlink()
    with pytest.raises(LogCorrupt, match="a segment is missing: records"):
        there.open()


def test_retention_by_age_and_restart_keep_positions(there: Fixture) -> None:
    there.limits = LogLimits(segment_bytes=300, retention_ms=1000)
    log = there.open()
    for _ in range(20):
        append(log, bytes(50))
    there.clock.now_ms += 500
    for _ in range(20):
        append(log, bytes(50))
    before = log.last_offset
    there.clock.now_ms += 700
    assert log.retain() > 0
    begin = log.begin_sequence
    assert 15 < begin <= 20
    assert len(read_all(log)) == 40 - begin
    there.clock.now_ms += 1000
    log.retain()
    assert (log.begin_sequence, log.next_sequence, log.last_offset) == (40, 40, before)
    assert read_all(log) == []
    close(log)
    log = there.open()
    assert (log.begin_sequence, log.next_sequence) == (40, 40)
    append(log, b"x")
    assert (log.last_offset, log.next_sequence) == (before + 50, 41)
    assert positions.resolve(positions.parse_filter(f"amqp.annotation.x-opt-offset > '{before}'"), log) == 40
    close(log)


def test_retention_by_size(there: Fixture) -> None:
    there.limits = LogLimits(segment_bytes=4096, retention_bytes=10_000)
    log = there.open()
    for _ in range(100):
        append(log, bytes(500))
    log.retain()
    assert log.size <= 10_000
    assert len(read_all(log)) == 100 - log.begin_sequence > 5
    close(log)


def test_a_reader_never_moves_back_under_retention(there: Fixture) -> None:
    there.limits = LogLimits(segment_bytes=1000, retention_bytes=3000, tail_bytes=100)
    log = there.open()
    cursor, seen = Cursor(log, 0), list[int]()
    for _ in range(60):
        append(log, bytes(200))
        if log.next_sequence % 7 == 0:
            log.retain()
            seen += [event.sequence for event in cursor.read(2)]
    assert seen == sorted(set(seen))
    assert seen[-1] >= log.begin_sequence - 8
    cursor.close()
    close(log)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (None, 0),
        ("amqp.annotation.x-opt-offset > '-1'", 0),
        ("amqp.annotation.x-opt-offset > '30'", 4),
        ("amqp.annotation.x-opt-offset >= '30'", 3),
        ("amqp.annotation.x-opt-offset > '35'", 4),
        ("amqp.annotation.x-opt-offset > '990'", 100),
        ("amqp.annotation.x-opt-offset > '@latest'", 100),
        ("amqp.annotation.x-opt-offset >= '@latest'", 99),
        ("amqp.annotation.x-opt-sequence-number > '-1'", 0),
        ("amqp.annotation.x-opt-sequence-number > 41", 42),
        ("amqp.annotation.x-opt-sequence-number >= '41'", 41),
        ("amqp.annotation.x-opt-sequence-number > '99'", 100),
        ("amqp.annotation.x-opt-sequence-number >= '100'", 100),
        ("amqp.annotation.x-opt-enqueued-time > '1000500'", 51),
        ("amqp.annotation.x-opt-enqueued-time >= '1000500'", 50),
        ("amqp.annotation.x-opt-enqueued-time > '5'", 0),
        ("amqp.annotation.x-opt-enqueued-time > '9999999999999'", 100),
    ],
)
def test_positions(there: Fixture, expression: str | None, expected: int) -> None:
    there.limits = LogLimits(segment_bytes=2000)
    log = there.open()
    for _ in range(100):
        append(log, bytes(10))
        there.clock.now_ms += 10
    assert positions.resolve(positions.parse_filter(expression), log) == expected
    close(log)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (
            "amqp.annotation.x-opt-offset > '11'",
            "The supplied offset '11' is invalid. The last offset in the system is",
        ),
        ("amqp.annotation.x-opt-sequence-number > '2'", "The supplied sequence number '2' is invalid"),
        ("amqp.annotation.x-opt-sequence-number >= '3'", "The supplied sequence number '3' is invalid"),
        ("color = 'red'", "the filter is not supported"),
        ("amqp.annotation.x-opt-offset > '1' or 1=1", "the filter is not supported"),
        ("amqp.annotation.x-opt-offset > '99999999999999999999999'", "the filter is not supported"),
    ],
)
def test_positions_that_are_refused(there: Fixture, expression: str, text: str) -> None:
    log = there.open()
    append(log, bytes(10), bytes(1))
    with pytest.raises(LinkError, match=text) as caught:
        positions.resolve(positions.parse_filter(expression), log)
    assert caught.value.condition == "com.microsoft:argument-error"
    close(log)


def test_an_old_position_starts_at_the_first_kept_event(there: Fixture) -> None:
    there.limits = LogLimits(segment_bytes=500, retention_bytes=1000)
    log = there.open()
    for _ in range(50):
        append(log, bytes(100))
    log.retain()
    assert log.begin_sequence > 30
    for expression in ("x-opt-offset > '5'", "x-opt-sequence-number > '5'", "x-opt-offset > '-1'"):
        start = positions.resolve(positions.parse_filter(f"amqp.annotation.{expression}"), log)
        assert start == log.begin_sequence
    close(log)


def test_a_full_disk_stores_nothing_of_a_batch(there: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    log = there.open()
    append(log, b"before")
    write = os.write

    def failing(descriptor: int, data: memoryview) -> int:
        if len(data) < 100:
            raise OSError(28, "No space left on device")
        return write(descriptor, bytes(data[:100]))

    outcomes: list[AppendFailed | None] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing)
        log.append([Plain(bytes(80)), Plain(bytes(80))], outcomes.append)
    assert isinstance(outcomes[0], AppendFailed)
    append(log, b"after")
    assert read_all(log) == [b"before", b"after"]
    close(log)
    log = there.open()
    assert read_all(log) == [b"before", b"after"]
    close(log)


def test_group_commit_shows_events_only_when_they_are_safe(there: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    there.limits = LogLimits(group_commit=True, segment_bytes=2000)
    syncs: list[int] = []
    monkeypatch.setattr(partition_log, "_sync_file", syncs.append)

    async def run() -> None:
        log = there.open()
        outcomes: list[AppendFailed | None] = []
        for _ in range(50):
            log.append([Plain(bytes(100))], outcomes.append)
        assert outcomes == []
        assert Cursor(log, 0).read(10) == []
        await log.close()
        assert outcomes == [None] * 50
        assert len(read_all(log)) == 50
        assert 0 < len(syncs) < 20, "appends that come together share a sync"

    asyncio.run(run())


def test_a_failed_sync_stops_the_partition(there: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    there.limits = LogLimits(group_commit=True)

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    async def run() -> None:
        log = there.open()
        outcomes: list[AppendFailed | None] = []
        with monkeypatch.context() as patch:
            patch.setattr(partition_log, "_sync_file", fail)
            log.append([Plain(b"a")], outcomes.append)
            await log.close()
        assert Cursor(log, 0).read(10) == []
        log.append([Plain(b"b")], outcomes.append)
        assert len(outcomes) == 2
        assert all(isinstance(outcome, AppendFailed) for outcome in outcomes)

    asyncio.run(run())
