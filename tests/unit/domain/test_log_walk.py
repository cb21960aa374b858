"""Walking a chain block by block finds what `verify_chain` finds in the whole of it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.canonical import Digest
from shared.domain.log_block import Fault, FaultKind, Head, LogBlock, next_block, verify_chain
from shared.domain.log_walk import ChainWalk


def chain(count: int, writer: str = "w") -> list[LogBlock]:
    blocks: list[LogBlock] = []
    for number in range(count):
        head = Head.of(blocks[-1]) if blocks else None
        blocks.append(next_block(writer, head, [f"{number}".encode(), b"other"]))
    return blocks


def walked(blocks: list[LogBlock], head: Head | None = None, first: int = 0) -> list[Fault]:
    by_sequence: dict[int, list[LogBlock]] = {}
    for block in blocks:
        by_sequence.setdefault(block.sequence, []).append(block)
    walk = ChainWalk("w", max(by_sequence, default=-1), head, first)
    found = [
        fault for sequence in sorted(by_sequence, reverse=True) for fault in walk.take(sequence, by_sequence[sequence])
    ]
    found += walk.finish()
    return sorted(set(found), key=lambda fault: (fault.writer, fault.sequence, fault.kind))


@given(st.data())
def test_it_finds_what_the_whole_finds(data: st.DataObject) -> None:
    blocks = chain(data.draw(st.integers(0, 7)))
    sealed = data.draw(st.integers(-1, len(blocks) - 1))
    head = Head.of(blocks[sealed]) if sealed >= 0 else None
    for _ in range(data.draw(st.integers(0, 3))):
        if not blocks:
            break
        place = data.draw(st.integers(0, len(blocks) - 1))
        block = blocks[place]
        match data.draw(st.sampled_from(["remove", "leaf", "previous", "double", "root"])):
            case "remove":
                del blocks[place]
            case "leaf":
                blocks[place] = replace(block, leaves=(Digest(bytes(32)), *block.leaves[1:]))
            case "previous":
                blocks[place] = replace(block, previous=Digest(b"\1" * 32))
            case "root":
                blocks[place] = replace(block, root=Digest(b"\2" * 32))
            case _:
                blocks.insert(place, replace(block, previous=Digest(b"\3" * 32)))
    ordered = sorted(blocks, key=lambda block: block.sequence)
    assert walked(ordered, head) == verify_chain("w", ordered, head)


def test_a_part_of_a_chain_trusts_what_lies_before_it() -> None:
    blocks = chain(6)
    assert walked(blocks[3:], first=3) == []
    assert walked(blocks[4:], first=3) == [Fault(FaultKind.MISSING, "w", 3)]
    assert walked(blocks[3:]) != []


def test_a_removed_tail_shows_only_beside_a_sealed_head() -> None:
    blocks = chain(5)
    assert walked(blocks[:3]) == []
    assert walked(blocks[:3], Head.of(blocks[4])) == [
        Fault(FaultKind.UNPROVEN, "w", 2),
        Fault(FaultKind.MISSING, "w", 3),
        Fault(FaultKind.MISSING, "w", 4),
    ]


def test_a_forged_sequence_number_does_not_make_the_walk_endless() -> None:
    blocks = chain(3)
    forged = replace(blocks[2], sequence=1 << 60)
    found = walked([*blocks, forged], Head.of(blocks[2]))
    assert len(found) < 3000
    assert {fault.kind for fault in found} == {FaultKind.MISSING}
    assert all(fault.sequence > 2 for fault in found)
