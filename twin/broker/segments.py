"""Segment files: a run of events of one partition, append-only, each record with a checksum.

A file starts with a header that carries what must survive the deletion of everything before it: the first sequence
number, the first offset and the enqueued time reached so far. Then records follow: length, crc32, sequence, enqueued
ms, header length, offset, payload. The offset is stored, not recomputed, because earlier segments may be gone on load.

Memory: a sparse index of 24 bytes per `INDEX_EVERY` records; payloads stay on disk.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from twin.broker.errors import LogCorrupt

INDEX_EVERY: Final = 64
"""One index entry per so many records: a look-up reads at most as many record heads."""

_MAGIC: Final = b"TGSEG\x00\x00\x01"
_HEADER: Final = struct.Struct(">8sqqqI")
_RECORD: Final = struct.Struct(">IIqqIq")
_CHECKED_FROM: Final = 8
"""The checksum covers a record from here on: all but the length and the checksum itself."""
_RECORD_BODY: Final = struct.Struct(">qqIq")
RECORD_OVERHEAD: Final = _RECORD.size
MAX_PAYLOAD: Final = 16 * 1024 * 1024
"""No stored event is longer; a greater length means a damaged record."""
_LOOKAHEAD: Final = 64
"""Sequence numbers searched for behind a damaged record, to tell a torn tail from damage in the middle."""


class StoredEvent(NamedTuple):
    """One stored event. A named tuple, because one is made per event on the hot path and frozen classes cost triple."""

    sequence: int
    enqueued_ms: int
    offset: int
    header_length: int
    payload: bytes


class RecordHead(NamedTuple):
    """A record without its payload, and where it lies in its file."""

    position: int
    length: int
    sequence: int
    enqueued_ms: int
    offset: int


def encode_record(event: StoredEvent) -> tuple[bytes, bytes]:
    """A record as (head, payload), to be written one after the other."""
    body = _RECORD_BODY.pack(event.sequence, event.enqueued_ms, event.header_length, event.offset)
    checksum = zlib.crc32(event.payload, zlib.crc32(body))
    return struct.pack(">II", len(event.payload), checksum) + body, event.payload


class Segment:
    """The description of one segment file: its extent and a sparse index, no payloads."""

    __slots__ = (
        "_offsets",
        "_positions",
        "_times",
        "base_ms",
        "base_offset",
        "base_sequence",
        "count",
        "last_ms",
        "last_offset",
        "next_offset",
        "path",
        "size",
    )

    def __init__(self, path: Path, base_sequence: int, base_offset: int, base_ms: int) -> None:
        self.path = path
        self.base_sequence = base_sequence
        self.base_offset = base_offset
        self.base_ms = base_ms
        self.count = 0
        self.size = _HEADER.size
        self.last_ms = base_ms
        self.last_offset = -1
        self.next_offset = base_offset
        self._positions = array("q")
        self._times = array("q")
        self._offsets = array("q")

    @property
    def next_sequence(self) -> int:
        """The sequence number behind the last record."""
        return self.base_sequence + self.count

    def note(self, length: int, enqueued_ms: int, offset: int) -> None:
        """Take notice of one record of `length` payload bytes that was written or read at the end."""
        if self.count % INDEX_EVERY == 0:
            self._positions.append(self.size)
            self._times.append(enqueued_ms)
            self._offsets.append(offset)
        self.count += 1
        self.size += _RECORD.size + length
        self.last_ms = enqueued_ms
        self.last_offset = offset
        self.next_offset = offset + length

    def position_of(self, sequence: int) -> int:
        """The file position of a record of this segment; at the end of the file for the next sequence number."""
        if sequence >= self.next_sequence:
            return self.size
        entry = (sequence - self.base_sequence) // INDEX_EVERY
        for head in self._heads(self._positions[entry]):
            if head.sequence == sequence:
                return head.position
        raise LogCorrupt(self.path, self._positions[entry], sequence, "the record is missing")

    def first_by_offset(self, offset: int, *, inclusive: bool) -> int:
        """The first sequence number with an offset greater than (or equal to) `offset`."""
        entry = max(0, bisect_right(self._offsets, offset) - 1)
        return self._first(entry, lambda head: head.offset > offset or (inclusive and head.offset == offset))

    def first_by_time(self, milliseconds: int, *, inclusive: bool) -> int:
        """The first sequence number enqueued after (or at) a moment in ms since the epoch."""
        entry = max(0, bisect_left(self._times, milliseconds) - 1)
        return self._first(
            entry, lambda head: head.enqueued_ms > milliseconds or (inclusive and head.enqueued_ms == milliseconds)
        )

    def _first(self, entry: int, wanted: Callable[[RecordHead], bool]) -> int:
        if self.count == 0:
            return self.next_sequence
        return next((head.sequence for head in self._heads(self._positions[entry]) if wanted(head)), self.next_sequence)

    def _heads(self, position: int) -> Iterator[RecordHead]:
        with self.path.open("rb") as file:
            while position < self.size:
                file.seek(position)
                raw = file.read(_RECORD.size)
                if len(raw) < _RECORD.size:
                    raise LogCorrupt(self.path, position, self.next_sequence, "the file is shorter than it was")
                length, _, sequence, enqueued_ms, _, offset = _RECORD.unpack(raw)
                yield RecordHead(position, length, sequence, enqueued_ms, offset)
                position += _RECORD.size + length


def segment_path(directory: Path, base_sequence: int) -> Path:
    """Where the segment that starts at a sequence number is kept; names sort in order."""
    return directory / f"{base_sequence:020d}.log"


def create(directory: Path, base_sequence: int, base_offset: int, base_ms: int) -> tuple[Segment, int]:
    """Start a segment; returns it and a file descriptor to append with.

    Raises:
        OSError: the file cannot be written.
    """
    segment = Segment(segment_path(directory, base_sequence), base_sequence, base_offset, base_ms)
    descriptor = os.open(segment.path, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
    fields = _HEADER.pack(_MAGIC, base_sequence, base_offset, base_ms, 0)[:-4]
    try:
        os.write(descriptor, fields + struct.pack(">I", zlib.crc32(fields)))
    except OSError:
        os.close(descriptor)
        segment.path.unlink(missing_ok=True)
        raise
    return segment, descriptor


def reopen(segment: Segment) -> int:
    """A file descriptor to append to an existing segment with."""
    return os.open(segment.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)


def load(path: Path, *, is_last: bool) -> tuple[Segment | None, int]:
    """Read a segment file and verify every record.

    Only the last segment may end in a torn record, left by a crash in the middle of a write; it is cut off.

    Returns:
        The segment and the number of bytes cut. None for a last segment whose header never became complete.

    Raises:
        LogCorrupt: a damaged header; a damaged record anywhere but at the very end of the last segment.
    """
    size = path.stat().st_size
    if size < _HEADER.size and is_last:
        path.unlink()
        return None, size
    with path.open("r+b") as file:
        segment = _read_header(path, file.read(_HEADER.size))
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            reason = _scan(segment, view)
            if reason is not None:
                following = _sound_record_after(view, segment)
                if not is_last or following is not None:
                    raise LogCorrupt(path, segment.size, segment.next_sequence, reason)
        if segment.size < size:
            file.truncate(segment.size)
    return segment, size - segment.size


def _read_header(path: Path, raw: bytes) -> Segment:
    if len(raw) < _HEADER.size:
        raise LogCorrupt(path, 0, 0, "the segment header is incomplete")
    magic, base_sequence, base_offset, base_ms, checksum = _HEADER.unpack(raw)
    if magic != _MAGIC:
        raise LogCorrupt(path, 0, 0, "not a segment of this format")
    if zlib.crc32(raw[:-4]) != checksum:
        raise LogCorrupt(path, 0, base_sequence, "the segment header does not match its checksum")
    return Segment(path, base_sequence, base_offset, base_ms)


def _scan(segment: Segment, view: mmap.mmap) -> str | None:
    """Note every sound record; the reason why the first unsound one is, or None when the file ends cleanly."""
    with memoryview(view) as data:
        end = len(data)
        while segment.size < end:
            reason = record_fault(data, segment.size, segment.next_sequence)
            if reason is not None:
                return reason
            length, _, _, enqueued_ms, _, offset = _RECORD.unpack_from(data, segment.size)
            segment.note(length, enqueued_ms, offset)
    return None


def record_fault(data: memoryview | bytes, position: int, sequence: int) -> str | None:
    """Why the record at `position` is not the sound record `sequence`; None when it is."""
    if len(data) - position < _RECORD.size:
        return "the record head is incomplete"
    length, checksum, found, _, header_length, _ = _RECORD.unpack_from(data, position)
    if length > MAX_PAYLOAD or header_length > length:
        return f"the length {length} is implausible"
    stop = position + _RECORD.size + length
    if stop > len(data):
        return "the record is incomplete"
    if zlib.crc32(data[position + _CHECKED_FROM : stop]) != checksum:
        return "the checksum does not match"
    if found != sequence:
        return f"the sequence number is {found}"
    return None


def _sound_record_after(view: mmap.mmap, segment: Segment) -> int | None:
    """The sequence number of a sound record behind the damaged one, or None.

    The length of a damaged record cannot be trusted, so the sequence numbers that should follow are searched for.
    """
    with memoryview(view) as data:
        for sequence in range(segment.next_sequence + 1, segment.next_sequence + _LOOKAHEAD):
            needle = sequence.to_bytes(8)
            found = view.find(needle, segment.size)
            while found != -1:
                start = found - _CHECKED_FROM
                if start > segment.size and record_fault(data, start, sequence) is None:
                    return sequence
                found = view.find(needle, found + 1)
    return None


def parse_records(segment: Segment, chunk: bytes, position: int, sequence: int) -> Iterator[StoredEvent]:
    """The complete records in `chunk`, which was read at `position` and starts with record `sequence`.

    Raises:
        LogCorrupt: a record that was sound on load is not any more.
    """
    start = 0
    while len(chunk) - start >= _RECORD.size:
        length, _, _, enqueued_ms, header_length, offset = _RECORD.unpack_from(chunk, start)
        stop = start + _RECORD.size + length
        if stop > len(chunk) and length <= MAX_PAYLOAD:
            return
        reason = record_fault(chunk, start, sequence)
        if reason is not None:
            raise LogCorrupt(segment.path, position + start, sequence, reason)
        yield StoredEvent(sequence, enqueued_ms, offset, header_length, chunk[start + _RECORD.size : stop])
        start = stop
        sequence += 1
