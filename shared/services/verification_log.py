"""The use case that verifies the log: every chain of blocks, every decision against its block, all of it against seals.

What it can say: nothing before the last seal was changed, removed, inserted or reordered since; after it, blocks are
only chained, so that the newest ones could be cut off without a trace. Memory: one block, its decisions, and one head
for each writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from shared.domain.archive import Extent, StoredBlock, StoredDecision
from shared.domain.canonical import Digest, digest_of
from shared.domain.errors import BrokenInvariant
from shared.domain.log_block import Fault, FaultKind, Head, verify_leaves
from shared.domain.log_walk import ChainWalk, is_sound
from shared.domain.seal import NO_SEAL, Seal, read_seal
from shared.ports.archive import Archive, ArchiveSnapshot, Seals
from shared.services.sealing import OVERLAP_US
from shared.services.verification_findings import Findings, Progress, Subject, no_progress

_PROGRESS_BLOCKS = 5_000


@dataclass(slots=True)
class LogReport:
    """What verifying the log came to.

    Attributes:
        findings: What does not hold.
        writers: Chains walked.
        blocks: Blocks looked at.
        decisions: Decisions held against their block.
        seals: Seals read.
        sealed_at_us: When the last seal was made, microseconds since 1970 UTC: what it knows is proven; None without
            seals.
        chained: Blocks after the sealed heads: chained to one another, not proven.
        chained_from_us: Recorded time of the earliest of them.
        anchored: Chains whose start was not looked at, because it lies before the time asked for: what the block there
            says of the one before it is taken as it is.
    """

    findings: Findings = field(default_factory=Findings)
    writers: int = 0
    blocks: int = 0
    decisions: int = 0
    seals: int = 0
    sealed_at_us: int | None = None
    chained: int = 0
    chained_from_us: int | None = None
    anchored: int = 0


def verify_log(
    archive: Archive,
    seals: Seals,
    *,
    since_us: int | None = None,
    until_us: int | None = None,
    progress: Progress = no_progress,
) -> LogReport:
    """Verify the log.

    Args:
        archive: The ledger.
        seals: Where seals lie.
        since_us: Only blocks recorded since then, by our clock; chains begin at an anchor that is taken as it is.
        until_us: Only blocks recorded before then.
        progress: Told how far it is.

    Raises:
        Transient: The ledger or the seals cannot be reached now.
    """
    report = LogReport()
    newer = _seals_beyond_the_copies(archive, seals)
    with archive.snapshot() as snapshot:
        sealed = _Sealed(snapshot, seals, newer, report, progress)
        is_bounded = since_us is not None or until_us is not None
        extents = tuple(snapshot.extents(since_us, until_us)) if is_bounded else None
        _Chains(snapshot, extents, sealed.heads, report, progress).verify()
    return report


def _seals_beyond_the_copies(archive: Archive, seals: Seals) -> list[bytes]:
    """Seals that the database has no copy of.

    They are read before the snapshot in which blocks are looked for, so that it holds every block that they name.
    """
    with archive.snapshot() as snapshot:
        number = max((stored.number for stored in snapshot.seals()), default=-1) + 1
    newer = []
    while (data := seals.get(number)) is not None:
        newer.append(data)
        number += 1
    return newer


class _Sealed:
    """The seals: whether they hold, and the last head of each writer.

    The copies in the database are read, because they are one stream; the last of them is compared with the seal itself,
    which binds all before it by their hashes. Only if that fails is every seal fetched.
    """

    def __init__(
        self, snapshot: ArchiveSnapshot, seals: Seals, newer: list[bytes], report: LogReport, progress: Progress
    ) -> None:
        self.heads: dict[str, Head] = {}
        self._report = report
        self._seals = seals
        self._progress = progress
        self._last: tuple[int, Digest] = (-1, NO_SEAL)
        copies: list[tuple[int, Digest]] = []
        last_copy: tuple[int, bytes] | None = None
        for stored in snapshot.seals():
            copies.append((stored.number, digest_of(stored.data)))
            last_copy = (stored.number, stored.data)
        if last_copy is not None and (not self._is_chain(snapshot) or newer or seals.get(last_copy[0]) != last_copy[1]):
            self._take_each(dict(copies), last_copy[0] + len(newer))
        else:
            for stored in snapshot.seals():
                self._take(stored.number, stored.data)
            for data in newer:
                self._missing_copy(self._last[0] + 1)
                self._take(self._last[0] + 1, data)

    def _is_chain(self, snapshot: ArchiveSnapshot) -> bool:
        """Whether the copies follow one another."""
        number, previous = -1, NO_SEAL
        for stored in snapshot.seals():
            try:
                found = read_seal(stored.data)
            except BrokenInvariant:
                return False
            if (found.number, stored.number, found.previous) != (number + 1, number + 1, previous):
                return False
            number, previous = found.number, found.hash
        return True

    def _take_each(self, copies: Mapping[int, Digest], last: int) -> None:
        """Fetch every seal, and say what is wrong with its copy."""
        for number in range(last + 1):
            data = self._seals.get(number)
            copy = copies.get(number)
            if data is None:
                self._fault(number, "it is gone from where seals lie")
                continue
            if copy is None:
                self._missing_copy(number)
            elif copy != digest_of(data):
                self._fault(number, "its copy in the database was changed")
            self._take(number, data)

    def _take(self, number: int, data: bytes) -> None:
        """Go on to the next seal."""
        try:
            found = read_seal(data)
        except BrokenInvariant as error:
            self._fault(number, f"it cannot be read: {error}")
            return
        if found.number != number:
            self._fault(number, f"it says that it is seal {found.number}")
        if self._last[0] == number - 1 and found.previous != self._last[1]:
            self._fault(number, "it does not follow the seal before it")
        self._take_heads(found)
        self._last = (number, found.hash)
        self._report.seals += 1
        self._report.sealed_at_us = found.sealed_at_us
        if self._report.seals % _PROGRESS_BLOCKS == 0:
            self._progress("seals", self._report.seals)

    def _take_heads(self, found: Seal) -> None:
        for head in found.heads:
            before = self.heads.get(head.writer)
            if before is not None and (
                head.sequence < before.sequence or (head.sequence == before.sequence and head.hash != before.hash)
            ):
                self._fault(found.number, f"it seals block {head.sequence} of {head.writer} after {before.sequence}")
            self.heads[head.writer] = head

    def _missing_copy(self, number: int) -> None:
        self._fault(number, "it has no copy in the database")

    def _fault(self, number: int, detail: str) -> None:
        self._report.findings.add(Subject.SEAL, str(number), detail)


type _Place = tuple[str, int]


class _Chains:
    """All chains, block by block from their ends, with the decisions that name the blocks."""

    def __init__(
        self,
        snapshot: ArchiveSnapshot,
        extents: tuple[Extent, ...] | None,
        heads: Mapping[str, Head],
        report: LogReport,
        progress: Progress,
    ) -> None:
        self._snapshot = snapshot
        self._extents = extents
        self._bounds = None if extents is None else {item.writer: item for item in extents}
        self._heads = heads
        self._report = report
        self._progress = progress

    def verify(self) -> None:
        """Walk them."""
        walk: ChainWalk | None = None
        seen: set[str] = set()
        for (writer, sequence), blocks, decisions in self._places():
            if walk is None or walk.writer != writer:
                if walk is not None:
                    self._tell(walk.finish())
                walk = self._begin(writer, sequence)
                seen.add(writer)
            self._look(walk, sequence, blocks, decisions)
        if walk is not None:
            self._tell(walk.finish())
        if self._bounds is None:
            for writer in sorted(set(self._heads) - seen):
                lost = ChainWalk(writer, -1, self._heads[writer])
                self._tell(lost.finish())

    def _begin(self, writer: str, last: int) -> ChainWalk:
        """Start a chain at its end."""
        self._report.writers += 1
        bounds = None if self._bounds is None else self._bounds.get(writer)
        head = self._heads.get(writer)
        if bounds is None:
            return ChainWalk(writer, last, head)
        self._report.anchored += bounds.first > 0
        if head is not None and not bounds.first <= head.sequence <= bounds.last:
            head = None
        return ChainWalk(writer, last, head, bounds.first)

    def _places(self) -> Iterator[tuple[_Place, list[StoredBlock], list[StoredDecision]]]:
        """Blocks and decisions side by side, by writer and falling sequence; a place may lack one of both."""
        blocks = _grouped(self._snapshot.blocks(self._extents), lambda item: (item.block.writer, item.block.sequence))
        decisions = _grouped(self._snapshot.logged(self._extents), lambda item: (item.writer, item.sequence))
        block, decision = next(blocks, None), next(decisions, None)
        while block is not None or decision is not None:
            place = min((item[0] for item in (block, decision) if item is not None), key=_order)
            here: tuple[list[StoredBlock], list[StoredDecision]] = ([], [])
            if block is not None and block[0] == place:
                here[0].extend(block[1])
                block = next(blocks, None)
            if decision is not None and decision[0] == place:
                here[1].extend(decision[1])
                decision = next(decisions, None)
            yield place, *here

    def _look(self, walk: ChainWalk, sequence: int, stored: list[StoredBlock], decisions: list[StoredDecision]) -> None:
        """Look at what is stored at one place of a chain."""
        report = self._report
        found = [*walk.take(sequence, [item.block for item in stored])]
        found += [Fault(FaultKind.CHANGED, walk.writer, sequence) for item in stored if item.hash != item.block.hash]
        found += [Fault(FaultKind.INSERTED, walk.writer, sequence) for item in stored if self._is_stranger(item)]
        self._tell(iter(dict.fromkeys(found)))
        report.blocks += len(stored)
        report.decisions += len(decisions)
        here = {fault.kind for fault in found if fault.sequence == sequence}
        if len(stored) == 1 and FaultKind.CHANGED not in here and is_sound(stored[0].block):
            for fault in verify_leaves(stored[0].block, [item.record for item in decisions]):
                report.findings.add(Subject.DECISION, _named(fault, decisions), str(fault))
        elif decisions:
            detail = f"its block {sequence} of {walk.writer} is {'damaged' if stored else 'missing'}"
            for item in decisions:
                report.findings.add(Subject.DECISION, item.transaction_id, f"{FaultKind.UNPROVEN.value}: {detail}")
        if report.blocks % _PROGRESS_BLOCKS == 0:
            self._progress("blocks", report.blocks)

    def _is_stranger(self, item: StoredBlock) -> bool:
        """Whether a seal should know a block and does not; also counts what no seal knows yet."""
        report = self._report
        head = self._heads.get(item.block.writer)
        if head is not None and item.block.sequence <= head.sequence:
            return False
        report.chained += 1
        earliest = report.chained_from_us
        report.chained_from_us = item.recorded_at_us if earliest is None else min(earliest, item.recorded_at_us)
        return report.sealed_at_us is not None and item.recorded_at_us + OVERLAP_US <= report.sealed_at_us

    def _tell(self, faults: Iterator[Fault]) -> None:
        for fault in faults:
            self._report.findings.add(Subject.BLOCK, f"{fault.writer}/{fault.sequence}", fault.kind.value)


def _named(fault: Fault, decisions: list[StoredDecision]) -> str:
    """The transaction that a fault concerns, as far as what is stored tells."""
    if fault.leaf is None:
        return fault.writer
    if fault.kind is FaultKind.INSERTED:
        return decisions[fault.leaf].transaction_id
    at_leaf = [item.transaction_id for item in decisions if item.leaf == fault.leaf]
    return at_leaf[0] if at_leaf and fault.kind is not FaultKind.MISSING else f"unknown, leaf {fault.leaf}"


def _order(place: _Place) -> tuple[str, int]:
    return place[0], -place[1]


def _grouped[Item](items: Iterator[Item], place_of: Callable[[Item], _Place]) -> Iterator[tuple[_Place, list[Item]]]:
    """Items of one place, which come one after the other, together."""
    group: list[Item] = []
    last: _Place | None = None
    for item in items:
        place = place_of(item)
        if place != last and last is not None:
            yield last, group
            group = []
        group.append(item)
        last = place
    if last is not None:
        yield last, group
