"""The use case that seals: the heads of the writers' chains go where whoever writes the log cannot change them.

A seal holds what is visible when it is made. A commit that was in flight then, or whose writer's clock lags, shows up
in a later seal: heads are looked for from `OVERLAP_US` before the last seal on, and verification allows as much before
it calls a block inserted. Two that seal at once compete for one number; one of them wins, and the other has nothing to
do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared.domain.archive import StoredSeal
from shared.domain.errors import BrokenInvariant
from shared.domain.instants import US_PER_MINUTE
from shared.domain.log_block import Head
from shared.domain.seal import NO_SEAL, Seal, read_seal, seal_bytes
from shared.ports.archive import SealedLedger, Seals
from shared.ports.clock import Clock

OVERLAP_US: Final = 10 * US_PER_MINUTE
"""How long a block may take from its recorded time until others see it: statements end within 15 s, a session that
stands still in a unit of work within 30 s, and servers' clocks are seconds apart."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What an attempt to seal came to.

    Attributes:
        seal: The seal that was made; None if there was nothing to seal, or another one sealed at the same time.
        fallen: Writers whose chain ends before the head that was sealed, or at another block: blocks are gone.
    """

    seal: Seal | None
    fallen: tuple[Head, ...] = ()


def seal(ledger: SealedLedger, seals: Seals, clock: Clock, *, everything: bool = False) -> Sealed:
    """Seal the heads that moved since the last seal.

    Cheap when nothing did: one look at the blocks of the last minutes. A chain that fell behind its sealed head is not
    sealed again, and said.

    Args:
        ledger: Where the heads are.
        seals: Where seals lie.
        clock: Our clock.
        everything: Look at all writers and not only at those that wrote lately.

    Raises:
        Transient: One of both cannot be reached now; the next attempt goes on from what there is.
        BrokenInvariant: A stored seal cannot be read.
    """
    last = _last(ledger, seals)
    since_us = None if last is None else last.sealed_at_us - OVERLAP_US
    known: dict[str, Head] = {}
    if since_us is not None:
        for stored in ledger.recent_seals(0 if everything else since_us):
            known |= {head.writer: head for head in read_seal(stored.data).heads}
    heads = ledger.heads(None if everything else since_us)
    moved, fallen = [], []
    for head in heads:
        before = known.get(head.writer)
        if before is None or head.sequence > before.sequence:
            moved.append(head)
        elif head != before:
            fallen.append(head)
    if not moved:
        return Sealed(None, tuple(fallen))
    number, previous = (0, NO_SEAL) if last is None else (last.number + 1, last.hash)
    now_us = clock.now_us() if last is None else max(clock.now_us(), last.sealed_at_us)
    made = Seal(number, now_us, previous, tuple(sorted(moved, key=lambda head: head.writer)))
    data = seal_bytes(made)
    if not seals.put(number, data):
        return Sealed(None, tuple(fallen))
    ledger.mirror(StoredSeal(number, data))
    return Sealed(made, tuple(fallen))


def _last(ledger: SealedLedger, seals: Seals) -> Seal | None:
    """The last seal; copies that a crash left out are made now."""
    mirrored = ledger.last_seal()
    last = None if mirrored is None else read_seal(mirrored.data)
    number = 0 if last is None else last.number + 1
    while (data := seals.get(number)) is not None:
        found = read_seal(data)
        if found.number != number or found.previous != (NO_SEAL if last is None else last.hash):
            raise BrokenInvariant(f"seal {number} does not follow the seal before it")
        ledger.mirror(StoredSeal(number, data))
        last, number = found, number + 1
    return last
