"""The log of one partition: append, look up, read, forget.

State is on disk in segments (`segments`); in memory are their sparse indexes and a bounded tail of recent events,
because readers are usually at the end. Everything runs on the event loop's thread; only fsync goes to a worker thread.

Two ends: `next_sequence` is where the next event goes, `visible_end` is what readers may see and producers were told is
stored. They differ only while group commit waits for the disk: an event that a power cut can still take back must not
be seen, or its sequence number would be used twice.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from twin.broker import segments
from twin.broker.errors import BrokerError, LogCorrupt
from twin.broker.segments import RECORD_OVERHEAD, Segment, StoredEvent

_log = logging.getLogger(__name__)

_READ_CHUNK: Final = 256 * 1024
"""Bytes per read from disk: about 0.1 ms of the event loop's time when the page cache has them."""
_EVENT_OVERHEAD: Final = 200
"""Estimated bytes of a cached event besides its payload."""

_sync_file: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class AppendFailed(BrokerError):
    """The events could not be stored; none of them is in the log."""


class Stampable(Protocol):
    """An event that becomes what is stored once its place in the log is known."""

    @property
    def header_length(self) -> int:
        """Bytes before the place where delivery annotations go."""

    def stamp(self, sequence: int, offset: int, enqueued_ms: int) -> bytes:
        """The bytes to store and to deliver."""


@dataclass(frozen=True, slots=True)
class LogLimits:
    """How much a partition keeps.

    `retention_ms` is an age, `retention_bytes` a size (None: no limit); both drop whole segments. `segment_bytes`
    starts a new segment, `tail_bytes` bounds the events kept in memory. `group_commit` acknowledges only after fsync.
    """

    segment_bytes: int = 64 * 1024 * 1024
    retention_ms: int = 24 * 3600 * 1000
    retention_bytes: int | None = None
    tail_bytes: int = 4 * 1024 * 1024
    group_commit: bool = False


OnDurable = Callable[[AppendFailed | None], None]
"""Called once per append: with None when the events are stored, else with why they are not."""


class PartitionLog:
    """The events of one partition, with dense sequence numbers from 0 and offsets that count payload bytes."""

    def __init__(self, directory: Path, limits: LogLimits, clock_ms: Callable[[], int]) -> None:
        """Load what is there, or start empty.

        Raises:
            LogCorrupt: stored events are damaged or a segment is missing.
            OSError: the directory cannot be used.
        """
        self._directory = directory
        self._limits = limits
        self._clock_ms = clock_ms
        self._segments: list[Segment] = []
        self._tail: list[StoredEvent] = []
        self._tail_bytes = 0
        self._readers: list[Callable[[], None]] = []
        self._waiting: list[OnDurable] = []
        self._sync_task: asyncio.Task[None] | None = None
        self._retired: list[int] = []
        self._failure: AppendFailed | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._descriptor = self._load()
        self.last_ms = self._active.last_ms
        self.last_offset = self._last_offset()
        self.visible_end = self.next_sequence

    def _load(self) -> int:
        paths = sorted(self._directory.glob("*.log"))
        for path in paths:
            segment, cut = segments.load(path, is_last=path is paths[-1])
            if cut:
                _log.warning("cut a torn tail", extra={"path": str(path), "bytes": cut})
            if segment is None:
                continue
            if self._segments and segment.base_sequence != self._active.next_sequence:
                reason = f"a segment is missing: records {self._active.next_sequence} to {segment.base_sequence - 1}"
                raise LogCorrupt(path, 0, self._active.next_sequence, reason)
            self._segments.append(segment)
        if self._segments:
            return segments.reopen(self._active)
        segment, descriptor = segments.create(self._directory, 0, 0, 0)
        self._segments.append(segment)
        return descriptor

    def _last_offset(self) -> int:
        """The offset of the newest event ever stored; -1 when there was none.

        An empty active segment behind dropped ones only knows where the next event goes, so it answers with the
        position just before that.
        """
        newest = next((segment for segment in reversed(self._segments) if segment.count), None)
        return self._active.base_offset - 1 if newest is None else newest.last_offset

    @property
    def _active(self) -> Segment:
        return self._segments[-1]

    @property
    def next_sequence(self) -> int:
        """The sequence number the next event gets."""
        return self._active.next_sequence

    @property
    def begin_sequence(self) -> int:
        """The first sequence number still kept; `next_sequence` when there is none."""
        return self._segments[0].base_sequence

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in self._segments)

    # -------------------------------------------------------------------------------------------- append

    def append(self, events: Sequence[Stampable], on_durable: OnDurable) -> None:
        """Store events in order, all or none, and call `on_durable` (at once, unless group commit is on)."""
        if self._failure is not None:
            on_durable(self._failure)
            return
        try:
            stored = self._write(events)
        except OSError as error:
            on_durable(AppendFailed(f"the events could not be stored: {error.strerror or error}"))
            return
        self._remember(stored)
        if self._limits.group_commit:
            self._waiting.append(on_durable)
            if self._sync_task is None:
                self._sync_task = asyncio.get_running_loop().create_task(self._group_commit())
            return
        self.visible_end = self.next_sequence
        on_durable(None)
        self._wake_readers()

    def _write(self, events: Sequence[Stampable]) -> list[StoredEvent]:
        if self._active.size >= self._limits.segment_bytes:
            self._roll()
            # The size limit is kept at once; age can wait for the next call of `retain`.
            self._drop_segments()
        # Enqueued times never decrease within a partition, whatever the machine's clock does.
        enqueued_ms = max(self._clock_ms(), self.last_ms)
        sequence, offset = self.next_sequence, self._active.next_offset
        stored: list[StoredEvent] = []
        buffers: list[bytes] = []
        for event in events:
            payload = event.stamp(sequence, offset, enqueued_ms)
            record = StoredEvent(sequence, enqueued_ms, offset, event.header_length, payload)
            stored.append(record)
            buffers += segments.encode_record(record)
            sequence += 1
            offset += len(payload)
        self._write_all(b"".join(buffers))
        for record in stored:
            self._active.note(len(record.payload), enqueued_ms, record.offset)
        self.last_ms, self.last_offset = enqueued_ms, stored[-1].offset
        return stored

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            # Half a batch must not stay: a later append would make it look like damage in the middle.
            os.ftruncate(self._descriptor, self._active.size)
            raise

    def _roll(self) -> None:
        active = self._active
        segment, descriptor = segments.create(
            self._directory, active.next_sequence, active.next_offset, max(active.last_ms, active.base_ms)
        )
        if self._limits.group_commit:
            # A worker thread may be syncing this very descriptor; the next commit closes it.
            self._retired.append(self._descriptor)
            # Where the numbers go on is only in the new header once retention has dropped what came before.
            os.fsync(descriptor)
            self._sync_directory()
        else:
            os.close(self._descriptor)
        self._segments.append(segment)
        self._descriptor = descriptor

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _remember(self, stored: list[StoredEvent]) -> None:
        self._tail += stored
        self._tail_bytes += sum(len(event.payload) + _EVENT_OVERHEAD for event in stored)
        if self._tail_bytes <= 2 * self._limits.tail_bytes:
            return
        # Trimmed to half at once, so that the cost of moving the list is shared by many appends.
        drop = 0
        while self._tail_bytes > self._limits.tail_bytes and drop < len(self._tail):
            self._tail_bytes -= len(self._tail[drop].payload) + _EVENT_OVERHEAD
            drop += 1
        del self._tail[:drop]

    async def _group_commit(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                retired, self._retired = self._retired, []
                end = self.next_sequence
                self._failure = self._failure or await self._sync([*retired, self._descriptor])
                for descriptor in retired:
                    os.close(descriptor)
                if self._failure is None:
                    self.visible_end = end
                for on_durable in waiting:
                    on_durable(self._failure)
                self._wake_readers()
        finally:
            self._sync_task = None

    async def _sync(self, descriptors: Sequence[int]) -> AppendFailed | None:
        try:
            for descriptor in descriptors:
                await asyncio.to_thread(_sync_file, descriptor)
        except OSError as error:
            # After a failed fsync the kernel may have dropped the pages; only a restart, which reads them, can tell.
            _log.exception("fsync failed; the partition takes no more events", extra={"path": str(self._directory)})
            return AppendFailed(f"the disk refused the events: {error.strerror or error}")
        return None

    # -------------------------------------------------------------------------------------------- look up

    def first_by_offset(self, offset: int, *, inclusive: bool) -> int:
        """The first kept sequence number with an offset greater than (or equal to) `offset`."""
        holding = next((s for s in reversed(self._segments) if s.base_offset <= offset), self._segments[0])
        return holding.first_by_offset(offset, inclusive=inclusive)

    def first_by_time(self, milliseconds: int, *, inclusive: bool) -> int:
        """The first kept sequence number enqueued after (or at) a moment in ms since the epoch."""
        for segment in self._segments:
            newest = segment.last_ms
            if segment.count and (newest > milliseconds or (inclusive and newest == milliseconds)):
                return segment.first_by_time(milliseconds, inclusive=inclusive)
        return self.next_sequence

    # -------------------------------------------------------------------------------------------- read

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Have `wake` called after each change of `visible_end`."""
        self._readers.append(wake)

    def unsubscribe(self, wake: Callable[[], None]) -> None:
        """Stop calling `wake`."""
        self._readers.remove(wake)

    def _wake_readers(self) -> None:
        for wake in self._readers:
            wake()

    def recent(self, sequence: int, limit: int) -> list[StoredEvent] | None:
        """Up to `limit` visible events from `sequence` on, if they are all in memory."""
        if not self._tail or sequence < self._tail[0].sequence:
            return None
        start = sequence - self._tail[0].sequence
        return self._tail[start : start + min(limit, self.visible_end - sequence)]

    def segment_of(self, sequence: int) -> Segment:
        """The segment that holds a kept sequence number."""
        return next(segment for segment in reversed(self._segments) if segment.base_sequence <= sequence)

    # -------------------------------------------------------------------------------------------- forget

    def retain(self) -> int:
        """Drop segments that are too old or too many; returns how many were dropped.

        Raises:
            OSError: a file cannot be deleted or created; what was dropped before stays dropped.
        """
        if self._active.count and self._active.last_ms < self._oldest_kept_ms():
            self._roll()
        return self._drop_segments()

    def _oldest_kept_ms(self) -> int:
        return self._clock_ms() - self._limits.retention_ms

    def _drop_segments(self) -> int:
        oldest_kept_ms = self._oldest_kept_ms()
        dropped = 0
        while len(self._segments) > 1 and (self._segments[0].last_ms < oldest_kept_ms or self._over_size()):
            self._segments[0].path.unlink(missing_ok=True)
            del self._segments[0]
            dropped += 1
        if dropped:
            self._forget_tail()
        return dropped

    def _over_size(self) -> bool:
        return self._limits.retention_bytes is not None and self.size > self._limits.retention_bytes

    def _forget_tail(self) -> None:
        keep = [event for event in self._tail if event.sequence >= self.begin_sequence]
        self._tail_bytes = sum(len(event.payload) + _EVENT_OVERHEAD for event in keep)
        self._tail = keep

    async def close(self) -> None:
        """Wait for a commit under way and close the files."""
        if self._sync_task is not None:
            await self._sync_task
        for descriptor in (*self._retired, self._descriptor):
            os.close(descriptor)


class Cursor:
    """A reader's place in a log: an absolute sequence number, so retention never moves it back.

    It keeps its own file open while it reads from disk; a segment that retention deletes stays readable until then.
    """

    __slots__ = ("_descriptor", "_log", "_position", "_segment", "next_sequence")

    def __init__(self, log: PartitionLog, next_sequence: int) -> None:
        self._log = log
        self.next_sequence = next_sequence
        self._segment: Segment | None = None
        self._descriptor = -1
        self._position = 0

    def read(self, limit: int) -> list[StoredEvent]:
        """Up to `limit` visible events, and move behind them; empty at the end of the log.

        A read from disk returns at most what one chunk holds, and at least one event however long it is.

        Raises:
            LogCorrupt: a record is damaged.
        """
        self.next_sequence = max(self.next_sequence, self._log.begin_sequence)
        if limit <= 0 or self.next_sequence >= self._log.visible_end:
            return []
        events = self._log.recent(self.next_sequence, limit)
        if events is None:
            events = self._read_disk(limit)
        else:
            self._forget_file()
        self.next_sequence += len(events)
        return events

    def _read_disk(self, limit: int) -> list[StoredEvent]:
        segment = self._log.segment_of(self.next_sequence)
        if segment is not self._segment:
            self._forget_file()
            self._position = segment.position_of(self.next_sequence)
            self._descriptor = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
            self._segment = segment
        limit = min(limit, self._log.visible_end - self.next_sequence)
        events = self._parse(segment, _READ_CHUNK, limit)
        if not events:
            events = self._parse(segment, segments.MAX_PAYLOAD + RECORD_OVERHEAD, 1)
        if not events:
            raise LogCorrupt(segment.path, self._position, self.next_sequence, "the record is incomplete")
        self._position += sum(len(event.payload) + RECORD_OVERHEAD for event in events)
        return events

    def _parse(self, segment: Segment, size: int, limit: int) -> list[StoredEvent]:
        chunk = os.pread(self._descriptor, size, self._position)
        records = segments.parse_records(segment, chunk, self._position, self.next_sequence)
        return list(islice(records, limit))

    def _forget_file(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._segment, self._descriptor = None, -1

    def close(self) -> None:
        """Close the file this cursor may have open."""
        self._forget_file()
