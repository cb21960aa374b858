"""Verifying a chain of any length, one block at a time from its end: `log_block.verify_chain` in bounded memory.

The walk takes blocks by falling sequence. Each block that is vouched for, by a seal or by the block after it, vouches
for the one before it. Where a block is changed or missing nothing vouches for the next one down; it is named
`unproven`, and the walk goes on from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from shared.domain.canonical import Digest
from shared.domain.log_block import NO_BLOCK, Fault, FaultKind, Head, LogBlock, merkle_root

_MOST_MISSING: Final = 1000
"""Of one gap so many blocks are named: one forged sequence number could leave a gap that nobody lives to see named."""


class ChainWalk:
    """One writer's chain, walked from its end to its beginning."""

    __slots__ = ("_expected", "_first", "_head", "_is_end", "_next", "writer")

    def __init__(self, writer: str, last: int, head: Head | None = None, first: int = 0) -> None:
        """Start above the end.

        Args:
            writer: Whose chain.
            last: Greatest sequence that is stored; -1 if nothing is.
            head: The sealed head.
            first: Sequence of the first block to look at; what the one before it holds is taken as it is.
        """
        self.writer = writer
        self._head = head
        self._first = first
        self._next = max(last, -1 if head is None else head.sequence)
        self._is_end = True
        self._expected: Digest | None = None

    def take(self, sequence: int, blocks: Sequence[LogBlock]) -> Iterator[Fault]:
        """Go down to a sequence number and look at the blocks that are stored there; called with falling numbers."""
        yield from self._missing_down_to(sequence)
        yield from self._look(sequence, blocks)

    def finish(self) -> Iterator[Fault]:
        """Go down to the beginning."""
        yield from self._missing_down_to(self._first - 1)
        if self._first == 0 and self._expected is not None and self._expected != NO_BLOCK:
            yield Fault(FaultKind.CHANGED, self.writer, 0)

    def _missing_down_to(self, sequence: int) -> Iterator[Fault]:
        named = 0
        while self._next > sequence:
            yield from self._look(self._next, ())
            named += 1
            if named == _MOST_MISSING:
                named, head = 0, self._head
                self._next = max(sequence, -1 if head is None or head.sequence > self._next else head.sequence)

    def _look(self, sequence: int, blocks: Sequence[LogBlock]) -> Iterator[Fault]:
        self._next = sequence - 1
        head = self._head
        if head is not None and sequence == head.sequence:
            if self._expected is not None and self._expected != head.hash:  # a tail that goes on from something else
                yield Fault(FaultKind.CHANGED, self.writer, sequence + 1)
            self._expected = head.hash
        vouched = self._is_end or self._expected is not None
        self._is_end = False
        kinds, self._expected = _at(blocks, self._expected)
        if not kinds and not vouched:
            kinds = [FaultKind.UNPROVEN]
        yield from [Fault(kind, self.writer, sequence) for kind in kinds]


def _at(blocks: Sequence[LogBlock], expected: Digest | None) -> tuple[list[FaultKind], Digest | None]:
    """What is wrong at one sequence number, and the hash that what stands there vouches for."""
    if not blocks:
        return [FaultKind.MISSING], None
    kinds = [FaultKind.INSERTED] if len(blocks) > 1 else []
    named = [block for block in blocks if expected is None or block.hash == expected]
    if not named:
        return [*kinds, FaultKind.CHANGED], None
    block = next((block for block in named if is_sound(block)), named[0])
    if not is_sound(block):
        kinds.append(FaultKind.CHANGED)
    return kinds, block.previous


def is_sound(block: LogBlock) -> bool:
    """Whether root and count of a block fit the leaf hashes that are kept beside them."""
    return block.count == len(block.leaves) and block.root == merkle_root(block.leaves)
