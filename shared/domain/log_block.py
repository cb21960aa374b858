"""The append-only log: blocks of decisions, chained per writer, with a Merkle root that binds every decision.

A commit appends one block: the writer's name, its next sequence number, the hash of the writer's previous block, the
Merkle root of the decisions' canonical bytes, and their count. Hashing follows RFC 6962 (section 2.1): a leaf is
SHA-256 of a zero byte and the data, a node SHA-256 of a one byte and its two children, an empty tree the hash of
nothing; the prefixes keep a node from passing for a leaf. A block keeps its leaf hashes beside the root, so that
verification can name the leaf that was changed and not only its block.

What verification cannot see is the end: a chain cut off at its head verifies. The heads are therefore sealed outside
the database from time to time, and a chain is verified against the last seal: what came before it is proven, what came
after it is not, and we say so.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final

from shared.domain.canonical import DIGEST_BYTES, Digest, Writer, digest_of
from shared.domain.errors import BrokenInvariant

BLOCK_KIND: Final = 0x42
BLOCK_FORMAT: Final = 1

NO_BLOCK: Final = Digest(bytes(DIGEST_BYTES))
"""The previous hash of a writer's first block."""

EMPTY_ROOT: Final = digest_of(b"")
"""The Merkle root of no leaves."""

_WRITER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def leaf_hash(data: bytes) -> Digest:
    """The hash of one leaf's data."""
    return Digest(hashlib.sha256(b"\x00" + data).digest())


def node_hash(left: bytes, right: bytes) -> Digest:
    """The hash of an inner node."""
    return Digest(hashlib.sha256(b"\x01" + left + right).digest())


def merkle_root(leaves: Sequence[Digest]) -> Digest:
    """The root over leaf hashes.

    Pairing neighbours level by level and carrying an odd last one up gives the tree of RFC 6962, whose left part is
    the largest full tree, in one pass.

    >>> merkle_root([]).hex()[:8]
    'e3b0c442'
    """
    if not leaves:
        return EMPTY_ROOT
    level = list(leaves)
    while len(level) > 1:
        odd = [level[-1]] if len(level) % 2 else []
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [node_hash(left, right) for left, right in pairs] + odd
    return level[0]


def inclusion_proof(leaves: Sequence[Digest], index: int) -> tuple[Digest, ...]:
    """The sibling hashes from a leaf up to the root: enough to prove the leaf to who holds only the root.

    Raises:
        BrokenInvariant: There is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise BrokenInvariant(f"no leaf {index} among {len(leaves)}")
    proof = []
    level = list(leaves)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            proof.append(level[sibling])
        odd = [level[-1]] if len(level) % 2 else []
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [node_hash(left, right) for left, right in pairs] + odd
        index //= 2
    return tuple(proof)


def proves_inclusion(leaf: Digest, index: int, count: int, proof: Sequence[Digest], root: Digest) -> bool:
    """Whether a proof shows that the leaf stands at `index` of a tree of `count` leaves with this root."""
    if not 0 <= index < count:
        return False
    found, rest = leaf, list(proof)
    while count > 1:
        if index % 2 == 1 or index + 1 < count:
            if not rest:
                return False
            sibling = rest.pop(0)
            found = node_hash(sibling, found) if index % 2 == 1 else node_hash(found, sibling)
        index //= 2
        count = (count + 1) // 2
    return not rest and found == root


@dataclass(frozen=True, slots=True)
class LogBlock:
    """One commit of one writer.

    Attributes:
        writer: Who wrote it, 1 to 64 letters, digits, dots, hyphens and underscores.
        sequence: 0, 1, 2 ... without a gap per writer.
        previous: Hash of the writer's previous block; `NO_BLOCK` for the first.
        root: Merkle root over the leaves.
        count: How many leaves there are.
        leaves: Their hashes, in order.
    """

    writer: str
    sequence: int
    previous: Digest
    root: Digest
    count: int
    leaves: tuple[Digest, ...]

    @property
    def hash(self) -> Digest:
        """What the next block, and a seal, name this block by: its header, which binds the leaves by their root."""
        header = Writer(BLOCK_KIND, BLOCK_FORMAT).text(self.writer).integer(self.sequence)
        return digest_of(header.data(self.previous).data(self.root).integer(self.count).finish())


@dataclass(frozen=True, slots=True)
class Head:
    """Where a writer's chain ends, as the writer remembers it or a seal keeps it.

    Attributes:
        writer: Whose chain.
        sequence: Sequence of the last block.
        hash: Hash of the last block.
    """

    writer: str
    sequence: int
    hash: Digest

    @classmethod
    def of(cls, block: LogBlock) -> Head:
        """The head after this block."""
        return cls(block.writer, block.sequence, block.hash)


def next_block(writer: str, head: Head | None, decisions: Sequence[bytes]) -> LogBlock:
    """The block that a commit appends.

    Args:
        writer: Who writes.
        head: The writer's last block; None for its first.
        decisions: Canonical bytes of the decisions of the commit, in their order.

    Raises:
        BrokenInvariant: No name for a writer, or the head of another one.
    """
    if not _WRITER.fullmatch(writer):
        raise BrokenInvariant(f"{writer!r} is no name of a writer")
    if head is not None and head.writer != writer:
        raise BrokenInvariant(f"{writer} cannot go on from the head of {head.writer}")
    leaves = tuple(leaf_hash(data) for data in decisions)
    sequence, previous = (0, NO_BLOCK) if head is None else (head.sequence + 1, head.hash)
    return LogBlock(writer, sequence, previous, merkle_root(leaves), len(leaves), leaves)


class FaultKind(StrEnum):
    """What is wrong with a block or a leaf; unproven: the block that should vouch for it is damaged or missing."""

    CHANGED = "changed"
    MISSING = "missing"
    INSERTED = "inserted"
    REORDERED = "reordered"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that does not verify.

    Attributes:
        kind: What is wrong.
        writer: Whose chain.
        sequence: Of the block concerned.
        leaf: Index of the decision in its block; None if the block itself is concerned.
    """

    kind: FaultKind
    writer: str
    sequence: int
    leaf: int | None = None

    def __str__(self) -> str:
        leaf = "" if self.leaf is None else f", decision {self.leaf}"
        return f"{self.kind.value}: block {self.sequence} of {self.writer}{leaf}"


def verify_chain(writer: str, blocks: Sequence[LogBlock], head: Head | None = None) -> list[Fault]:
    """What is wrong with a writer's blocks among themselves, and up to a sealed head.

    The chain is walked from its end: the head vouches for the last block, each proven block for the one before it.
    Where a block is changed or missing, nothing vouches for the one before it any more; that one is named `unproven`
    and the walk goes on from it. Without a head the last block is taken as it is, and so are blocks after the head.

    Args:
        writer: Whose chain it should be.
        blocks: The blocks in stored order.
        head: The sealed head.

    Returns:
        Faults by sequence; empty if the chain verifies.
    """
    faults = [Fault(FaultKind.INSERTED, block.writer, block.sequence) for block in blocks if block.writer != writer]
    own = [block for block in blocks if block.writer == writer]
    faults += [
        Fault(FaultKind.REORDERED, writer, block.sequence)
        for before, block in pairwise(own)
        if block.sequence < before.sequence
    ]
    by_sequence: dict[int, list[LogBlock]] = {}
    for block in own:
        by_sequence.setdefault(block.sequence, []).append(block)
    faults += [Fault(FaultKind.INSERTED, writer, sequence) for sequence in by_sequence if sequence < 0]
    last = max([*by_sequence, -1 if head is None else head.sequence], default=-1)
    expected: Digest | None = None
    for sequence in range(last, -1, -1):
        if head is not None and sequence == head.sequence:
            if expected is not None and expected != head.hash:  # a tail that goes on from something else
                faults.append(Fault(FaultKind.CHANGED, writer, sequence + 1))
            expected = head.hash
        vouched = sequence == last or expected is not None
        found, expected = _at_sequence(writer, sequence, by_sequence.get(sequence, []), expected)
        if not found and not vouched:
            found = [Fault(FaultKind.UNPROVEN, writer, sequence)]
        faults += found
    if expected is not None and expected != NO_BLOCK:
        faults.append(Fault(FaultKind.CHANGED, writer, 0))
    return sorted(set(faults), key=lambda fault: (fault.writer, fault.sequence, fault.kind))


def _at_sequence(
    writer: str, sequence: int, blocks: Sequence[LogBlock], expected: Digest | None
) -> tuple[list[Fault], Digest | None]:
    """What is wrong at one sequence number, and the hash that what stands there vouches for.

    Args:
        writer: Whose chain.
        sequence: The number.
        blocks: The blocks that claim it.
        expected: The hash that the block after it, or the head, names; None where nothing vouches.
    """
    if not blocks:
        return [Fault(FaultKind.MISSING, writer, sequence)], None
    faults = [Fault(FaultKind.INSERTED, writer, sequence)] if len(blocks) > 1 else []
    named = [block for block in blocks if expected is None or block.hash == expected]
    if not named:
        return [*faults, Fault(FaultKind.CHANGED, writer, sequence)], None
    block = next((block for block in named if _is_sound(block)), named[0])
    if not _is_sound(block):
        faults.append(Fault(FaultKind.CHANGED, writer, sequence))
    return faults, block.previous


def _is_sound(block: LogBlock) -> bool:
    """Whether root and count fit the leaf hashes that are kept beside them."""
    return block.count == len(block.leaves) and block.root == merkle_root(block.leaves)


def verify_leaves(block: LogBlock, decisions: Sequence[bytes]) -> list[Fault]:
    """What is wrong with the decisions of a block that itself verifies.

    Both sides are walked together. A decision that the block does not know is changed if it stands where one is
    missing, and inserted otherwise; a known one in another place is reordered.

    Args:
        block: The block.
        decisions: Canonical bytes of the decisions that are stored for it, in stored order.

    Returns:
        Faults with the index in the block (changed, missing, reordered) or among what is stored (inserted).
    """
    found = [leaf_hash(data) for data in decisions]
    lacking = Counter(block.leaves) - Counter(found)
    surplus = Counter(found) - Counter(block.leaves)
    kept_found = _without(found, surplus)
    kept_block = _without(block.leaves, lacking)
    missing = sorted(set(range(block.count)) - {place for place, _ in kept_block})
    extra = sorted(set(range(len(found))) - {place for place, _ in kept_found})
    faults = []
    stored_after = {place: _rank(kept_found, place) for place in extra}
    block_after = {place: _rank(kept_block, place) for place in missing}
    for place in missing:  # a stranger between the same neighbours has taken its place
        stranger = next((item for item in extra if stored_after[item] == block_after[place]), None)
        kind = FaultKind.MISSING if stranger is None else FaultKind.CHANGED
        if stranger is not None:
            extra.remove(stranger)
        faults.append(Fault(kind, block.writer, block.sequence, place))
    faults += [Fault(FaultKind.INSERTED, block.writer, block.sequence, place) for place in extra]
    faults += [
        Fault(FaultKind.REORDERED, block.writer, block.sequence, place)
        for (place, expected), (_, actual) in zip(kept_block, kept_found, strict=True)
        if expected != actual
    ]
    return faults


def _without(leaves: Sequence[Digest], out: Counter[Digest]) -> list[tuple[int, Digest]]:
    """Places and hashes of the leaves that both sides have; of repeated ones the last are left out."""
    left = Counter(out)
    kept = []
    for place in range(len(leaves) - 1, -1, -1):
        if left[leaves[place]] > 0:
            left[leaves[place]] -= 1
        else:
            kept.append((place, leaves[place]))
    return kept[::-1]


def _rank(kept: Sequence[tuple[int, Digest]], place: int) -> int:
    """How many of the kept leaves stand before a place."""
    return sum(other < place for other, _ in kept)
