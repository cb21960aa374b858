"""The log: Merkle trees against the RFC's own definition, and every kind of tampering named."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shared.domain.canonical import Digest
from shared.domain.errors import BrokenInvariant
from shared.domain.log_block import (
    EMPTY_ROOT,
    NO_BLOCK,
    Fault,
    FaultKind,
    Head,
    LogBlock,
    inclusion_proof,
    leaf_hash,
    merkle_root,
    next_block,
    proves_inclusion,
    verify_chain,
    verify_leaves,
)

W = "score-1"
OTHER = Digest(hashlib.sha256(b"other").digest())


def rfc_root(data: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not data:
        return hashlib.sha256().digest()
    if len(data) == 1:
        return hashlib.sha256(b"\x00" + data[0]).digest()
    split = 1
    while 2 * split < len(data):
        split *= 2
    return hashlib.sha256(b"\x01" + rfc_root(data[:split]) + rfc_root(data[split:])).digest()


def chain(*sizes: int) -> list[LogBlock]:
    blocks: list[LogBlock] = []
    head = None
    for number, size in enumerate(sizes):
        block = next_block(W, head, [b"%d-%d" % (number, place) for place in range(size)])
        head = Head.of(block)
        blocks.append(block)
    return blocks


CHAIN = chain(3, 1, 0, 5, 2, 4)
HEAD = Head.of(CHAIN[-1])


@given(st.lists(st.binary(max_size=4), max_size=40))
def test_roots_are_those_of_the_rfc(data: list[bytes]) -> None:
    assert merkle_root([leaf_hash(item) for item in data]) == rfc_root(data)


def test_published_roots() -> None:
    """The tree heads that implementations of RFC 6962 test themselves with (certificate-transparency, 8 inputs)."""
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    leaves = [leaf_hash(bytes.fromhex(item)) for item in inputs]
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert merkle_root(leaves[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert merkle_root(leaves[:3]).hex() == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    assert merkle_root(leaves).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@given(st.integers(1, 40), st.data())
def test_every_leaf_has_a_proof_and_no_other_place_or_leaf_does(count: int, data: st.DataObject) -> None:
    leaves = [leaf_hash(b"%d" % number) for number in range(count)]
    root = merkle_root(leaves)
    index = data.draw(st.integers(0, count - 1))
    proof = inclusion_proof(leaves, index)
    assert proves_inclusion(leaves[index], index, count, proof, root)
    assert len(proof) <= (count - 1).bit_length()
    other = data.draw(st.integers(-1, count))
    assert proves_inclusion(leaves[index], other, count, proof, root) == (other == index)
    assert not proves_inclusion(OTHER, index, count, proof, root)
    assert not proves_inclusion(leaves[index], index, count, [*proof, OTHER], root)
    assert not proves_inclusion(leaves[index], index, count, proof, OTHER)
    if proof:
        assert not proves_inclusion(leaves[index], index, count, proof[:-1], root)


def test_there_is_no_proof_for_what_is_not_there() -> None:
    with pytest.raises(BrokenInvariant):
        inclusion_proof([], 0)


@given(st.lists(st.integers(0, 4), max_size=6), st.booleans())
def test_an_untouched_chain_verifies(sizes: list[int], sealed: bool) -> None:
    blocks = chain(*sizes)
    head = Head.of(blocks[len(blocks) // 2]) if sealed and blocks else None
    assert verify_chain(W, blocks, head) == []
    assert all(
        verify_leaves(block, [b"%d-%d" % (n, i) for i in range(block.count)]) == [] for n, block in enumerate(blocks)
    )


def test_a_chain_starts_at_nothing_and_counts() -> None:
    assert CHAIN[0].previous == NO_BLOCK
    assert [block.sequence for block in CHAIN] == list(range(6))
    assert CHAIN[2].root == EMPTY_ROOT
    assert [block.previous for block in CHAIN[1:]] == [block.hash for block in CHAIN[:-1]]


@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize(
    "change",
    [
        {"previous": OTHER},
        {"root": OTHER},
        {"count": 17},
        {"leaves": (OTHER,)},
        {"leaves": (OTHER,), "count": 1, "root": merkle_root([OTHER])},
    ],
)
def test_a_changed_block_is_named(at: int, change: dict[str, object]) -> None:
    blocks = list(CHAIN)
    blocks[at] = replace(blocks[at], **change)  # type: ignore[arg-type]  # one of the fields
    faults = verify_chain(W, blocks, HEAD)
    assert Fault(FaultKind.CHANGED, W, at) in faults
    others = [fault for fault in faults if fault.kind is not FaultKind.CHANGED]
    assert all(fault == Fault(FaultKind.UNPROVEN, W, at - 1) for fault in others)
    assert [fault.sequence for fault in faults if fault.kind is FaultKind.CHANGED] == [at]


@pytest.mark.parametrize("at", range(6))
def test_a_missing_block_is_named(at: int) -> None:
    faults = verify_chain(W, CHAIN[:at] + CHAIN[at + 1 :], HEAD)
    expected = [Fault(FaultKind.UNPROVEN, W, at - 1)] if at else []
    assert faults == [*expected, Fault(FaultKind.MISSING, W, at)]


@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize("front", [False, True])
def test_an_inserted_block_is_named(at: int, front: bool) -> None:
    stranger = replace(CHAIN[at], leaves=(OTHER,), count=1, root=merkle_root([OTHER]))
    blocks = list(CHAIN)
    blocks.insert(at if front else at + 1, stranger)
    assert verify_chain(W, blocks, HEAD) == [Fault(FaultKind.INSERTED, W, at)]


def test_strange_blocks_are_named() -> None:
    foreign = next_block("score-2", None, [b"x"])
    assert verify_chain(W, [*CHAIN, foreign], HEAD) == [Fault(FaultKind.INSERTED, "score-2", 0)]
    negative = replace(CHAIN[0], sequence=-1)
    assert verify_chain(W, [negative, *CHAIN], HEAD) == [Fault(FaultKind.INSERTED, W, -1)]


@pytest.mark.parametrize("at", range(5))
def test_exchanged_blocks_are_named(at: int) -> None:
    blocks = list(CHAIN)
    blocks[at], blocks[at + 1] = blocks[at + 1], blocks[at]
    assert verify_chain(W, blocks, HEAD) == [Fault(FaultKind.REORDERED, W, at)]
    renumbered = [replace(block, sequence=number) for number, block in enumerate(blocks)]
    named = {fault.sequence for fault in verify_chain(W, renumbered, HEAD)}
    assert {at, at + 1} <= named


def test_a_cut_chain_needs_a_seal_to_be_found_out() -> None:
    assert verify_chain(W, CHAIN[:4]) == []
    faults = verify_chain(W, CHAIN[:4], HEAD)
    assert [str(fault) for fault in faults] == [
        "unproven: block 3 of score-1",
        "missing: block 4 of score-1",
        "missing: block 5 of score-1",
    ]
    assert [fault.kind for fault in verify_chain(W, [], HEAD)] == [FaultKind.MISSING] * 6


def test_a_chain_rewritten_to_its_end_contradicts_the_seal() -> None:
    rewritten = CHAIN[:2]
    for number in range(2, 8):
        rewritten = [*rewritten, next_block(W, Head.of(rewritten[-1]), [b"forged %d" % number])]
    assert verify_chain(W, rewritten) == []
    faults = verify_chain(W, rewritten, Head.of(CHAIN[4]))
    assert Fault(FaultKind.CHANGED, W, 4) in faults
    assert Fault(FaultKind.CHANGED, W, 5) in faults  # it goes on from a block that was never sealed


def test_a_first_block_that_claims_a_past_is_named() -> None:
    block = replace(next_block(W, None, [b"x"]), previous=OTHER)
    assert verify_chain(W, [block]) == [Fault(FaultKind.CHANGED, W, 0)]


@settings(max_examples=150)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.data())
def test_any_edit_of_any_block_is_found(sizes: list[int], data: st.DataObject) -> None:
    blocks = chain(*sizes)
    head = Head.of(blocks[-1])
    at = data.draw(st.integers(0, len(blocks) - 1))
    edited = list(blocks)
    match data.draw(st.sampled_from(["drop", "repeat", "flip", "leaf"])):
        case "drop":
            del edited[at]
        case "repeat":
            edited.insert(data.draw(st.integers(0, len(blocks))), blocks[at])
        case "flip":
            name = data.draw(st.sampled_from(["previous", "root"]))
            edited[at] = replace(blocks[at], **{name: OTHER})  # type: ignore[arg-type]  # one of the two digests
        case _:
            decisions = [leaf_hash(b"%d" % number) for number in range(data.draw(st.integers(0, 3)))]
            forged = replace(blocks[at], leaves=tuple(decisions), count=len(decisions), root=merkle_root(decisions))
            assume(forged != blocks[at])
            edited[at] = forged
    assert at in {fault.sequence for fault in verify_chain(W, edited, head)}


BLOCK = CHAIN[3]
STORED = [b"3-%d" % place for place in range(5)]


def kinds(decisions: list[bytes]) -> list[tuple[str, int | None]]:
    return [(fault.kind.value, fault.leaf) for fault in verify_leaves(BLOCK, decisions)]


@pytest.mark.parametrize("at", range(5))
def test_tampering_with_a_decision_is_named(at: int) -> None:
    assert kinds([*STORED[:at], b"x", *STORED[at + 1 :]]) == [("changed", at)]
    assert kinds(STORED[:at] + STORED[at + 1 :]) == [("missing", at)]
    assert kinds([*STORED[:at], b"x", *STORED[at:]]) == [("inserted", at)]
    assert kinds([*STORED, STORED[at]]) == [("inserted", 5)]
    if at < 4:
        swapped = [*STORED[:at], STORED[at + 1], STORED[at], *STORED[at + 2 :]]
        assert kinds(swapped) == [("reordered", at), ("reordered", at + 1)]


def test_several_edits_of_one_block_are_all_named() -> None:
    assert kinds([b"x", STORED[2], STORED[1], STORED[4], b"y"]) == [
        ("changed", 0),
        ("missing", 3),
        ("inserted", 4),
        ("reordered", 1),
        ("reordered", 2),
    ]
    assert kinds([]) == [("missing", place) for place in range(5)]
    fault = verify_leaves(BLOCK, STORED[1:])[0]
    assert str(fault) == "missing: block 3 of score-1, decision 0"


@given(st.lists(st.sampled_from(["3-0", "3-1", "3-2", "3-3", "3-4", "x", "y"]).map(str.encode), max_size=8))
def test_decisions_verify_only_if_they_are_those_of_the_block(decisions: list[bytes]) -> None:
    assert (verify_leaves(BLOCK, decisions) == []) == (decisions == STORED)


def test_writers_are_named_and_keep_to_their_chain() -> None:
    for name in ("", "a b", "-a", "x" * 65, "w\n"):
        with pytest.raises(BrokenInvariant):
            next_block(name, None, [])
    with pytest.raises(BrokenInvariant):
        next_block("score-2", HEAD, [])


def test_the_hash_of_a_block_never_changes() -> None:
    """Golden, format 1."""
    assert CHAIN[1].hash.hex() == GOLDEN


GOLDEN = "302a5a9a209991f8a842f6b96662c7f56e220815f0dfb907c5a20a8d5db88d50"
