"""What the use cases need from the outside, as protocols; adapters and fakes pass the same contract tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shared.domain.archive import (
    Erased,
    Extent,
    HistoryPart,
    Selection,
    StoredBlock,
    StoredDecision,
    StoredSeal,
    Stray,
)
from shared.domain.bundle_pointer import Pointed, Pointer, Role
from shared.domain.canonical import Digest
from shared.domain.dead_letter import KeptLetter, LetterId, LetterSelection
from shared.domain.event import DeadLetter, OutgoingEvent
from shared.domain.feature_view import Entity, FeatureView
from shared.domain.identifiers import CustomerId, TransactionId
from shared.domain.ledger import Claim, Claimed, DecisionWrites, LabelClaim, LabelsClaimed, LabelWrites, OutboxEntry
from shared.domain.log_block import Head
from shared.domain.probe import ProbeReceipt
from shared.domain.score import CalibrationTable, Scored
from shared.domain.training_model import FittedModel, Rows, TrainingParameters


class Clock(Protocol):
    """The time of day."""

    def now_us(self) -> int:
        """Microseconds since 1970 UTC."""
        ...


class ProbeReceipts(Protocol):
    """Where receipts of probes are kept."""

    def record(self, receipt: ProbeReceipt) -> bool:
        """Keep a receipt; the first one of a probe stays.

        Idempotent. Returns whether this call was the first.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...

    def find(self, probe_id: str) -> ProbeReceipt | None:
        """The receipt of a probe, or None.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...

    def expire(self, before_us: int) -> int:
        """Drop receipts of probes received before a time, in microseconds since 1970 UTC; returns how many.

        Idempotent. Cost: one listing of all receipts and one delete each.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...


class DeadLetters(Protocol):
    """Where events go that no retry can make usable."""

    def put(self, letter: DeadLetter) -> None:
        """Keep a dead letter. Idempotent: the same event is kept once, however often it is delivered.

        Raises:
            Transient: The store cannot be reached now; the event must not be acknowledged.
        """
        ...


class KeptLetters(Protocol):
    """Dead letters to be looked at and handed in again.

    Every method raises Transient if the store cannot be reached now.
    """

    def page(self, selection: LetterSelection, after: LetterId, limit: int) -> Sequence[KeptLetter]:
        """The next letters of a selection by number, those above `after`; fewer than `limit` are the last ones."""
        ...

    def find(self, letter_id: LetterId) -> tuple[KeptLetter, bytes] | None:
        """A letter and its body as it came; None if there is none."""
        ...

    def mark_replayed(self, letter_id: LetterId, replayed_at_us: int) -> bool:
        """Note that a letter was taken after all; returns whether this call did. Idempotent: the first time stays."""
        ...


class Scorer(Protocol):
    """A loaded model bundle; safe to use from several threads."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    @property
    def version(self) -> int:
        """Its version, rising with each training."""
        ...

    @property
    def bundle_digest(self) -> str:
        """The bundle's digest, 64 hexadecimal digits."""
        ...

    @property
    def view(self) -> FeatureView:
        """The feature view it was trained on."""
        ...

    @property
    def calibration(self) -> CalibrationTable:
        """From its output to a probability."""
        ...

    @property
    def base(self) -> float:
        """Its output for nothing known, in log-odds: what the contributions are added to."""
        ...

    @property
    def fingerprint(self) -> Digest:
        """Digest of the runtime (machine, libraries, thread settings) that equal bits are promised for."""
        ...

    def score(self, vectors: NDArray[np.float32]) -> Scored:
        """Score (n, n_features) float32 vectors in the order of the view, NaN where a value is missing.

        A row's output does not depend on the rows beside it, in any bit.

        Raises:
            BrokenInvariant: Another number of features.
        """
        ...


class Graph(Protocol):
    """A model's graph by itself, without reasons and calibration; safe to use from several threads."""

    def raw(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """The output of (n, n_features) float32 vectors: (n,) float32, a probability before calibration.

        Raises:
            BrokenInvariant: Another number of features.
        """
        ...


class Trainer(Protocol):
    """What grows trees, exports them, and answers itself as the oracle of parity; deterministic."""

    def fit(
        self,
        train: Rows,
        stop: Rows | None,
        parameters: TrainingParameters,
        progress: Callable[[int, int], None],
    ) -> FittedModel:
        """Grow trees on some rows; the log loss of others decides how many are kept.

        Args:
            train: Rows to learn from.
            stop: Rows to stop by; None keeps all trees.
            parameters: How.
            progress: Told the trees grown so far, and how many there may be.
        """
        ...

    def margins(self, booster: bytes, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """The training library's own outputs in log-odds: (n,) float32; rows may hold NaN and infinities."""
        ...

    def contributions(self, booster: bytes, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Its own exact contributions: (n, n_features + 1) float32, the last column is the base."""
        ...


class BundleStore(Protocol):
    """Where bundles are kept under their digest, and which of them plays which part."""

    def put(self, files: Mapping[str, bytes]) -> str:
        """Keep a bundle; returns its digest. Nothing is ever overwritten, and the manifest is written last.

        Idempotent, also after an earlier call that did not come to its end.

        Raises:
            BrokenInvariant: The files are no bundle that this release would open, or other files stand at its digest.
            Transient: The store cannot be reached now.
        """
        ...

    def get(self, digest: str) -> dict[str, bytes]:
        """The files of a bundle by name, unchecked: those that are there.

        Raises:
            NotFound: No bundle was put to its end under this digest.
            Transient: The store cannot be reached now.
        """
        ...

    def manifest(self, digest: str) -> bytes:
        """The manifest of a bundle, unchecked.

        Raises:
            NotFound: No bundle was put to its end under this digest.
            Transient: The store cannot be reached now.
        """
        ...

    def digests(self) -> list[str]:
        """The digests of all bundles, sorted; those put to their end.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...

    def pointer(self, role: Role) -> Pointed:
        """Who plays a part now; cheap enough to be asked every few seconds.

        Raises:
            Transient: The store cannot be reached now.
            BrokenInvariant: The pointer cannot be read.
        """
        ...

    def point(self, change: Pointer, tag: str) -> Pointed:
        """Give a part to another bundle.

        Args:
            change: The new state; its number is the next one of its role.
            tag: Of the state that the change was made from.

        Returns:
            The new state.

        Raises:
            Conflict: The role has changed since; nothing was changed by this call.
            NotFound: There is no such bundle.
            InvalidInput: The number is not the next one.
            Transient: It may or may not have been changed; asking for the pointer tells.
        """
        ...

    def history(self, role: Role) -> list[Pointer]:
        """All states of a role, oldest first; complete, also after writers that stopped half-way.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...


class Scorers(Protocol):
    """Where the model comes from that decides."""

    def current(self) -> Scorer:
        """The champion of this moment; the same object until another one takes over.

        Raises:
            Transient: There is none yet.
        """
        ...


class DecidingWork(Protocol):
    """One unit of work on transactions: claimed, computed, written, all or nothing."""

    @property
    def writer(self) -> str:
        """Whose chain of the log the unit's block belongs to; one writer writes one unit at a time."""
        ...

    @property
    def head(self) -> Head | None:
        """Where that chain ends; None before its first block."""
        ...

    def claim(self, claims: Sequence[Claim]) -> Claimed:
        """Claim ids and lock their entities, in an order that cannot deadlock; called once, ids unique.

        Cost: a fixed number of round trips, and one more where there are repeats or labels that waited.

        Raises:
            Transient: The store cannot be reached now, or the unit lost against another one.
            BrokenInvariant: Stored state cannot be read.
        """
        ...

    def write(self, writes: DecisionWrites) -> None:
        """Write everything and commit; returns once it is durable. Called at most once, and ends the unit.

        Raises:
            Transient: It may or may not have been committed; claiming the same ids again tells.
            BrokenInvariant: The store refuses what is written.
        """
        ...


class LabellingWork(Protocol):
    """One unit of work on labels."""

    def claim(self, claims: Sequence[LabelClaim]) -> LabelsClaimed:
        """Claim labels and lock the entities of their transactions; called once, (transaction id, digest) unique.

        Raises:
            Transient: As for transactions.
            BrokenInvariant: As for transactions.
        """
        ...

    def write(self, writes: LabelWrites) -> None:
        """Write everything and commit; as for transactions."""
        ...


class Ledger(Protocol):
    """The durable account of transactions, decisions, labels and entity state; one per thread.

    A unit of work that is left without `write` leaves no trace. Several ledgers, in any number of processes, may work
    on the same entities: the order in which they lock them is the order in which they know of one another.
    """

    def deciding(self, view: FeatureView) -> AbstractContextManager[DecidingWork]:
        """A unit of work on transactions whose entity state is kept for this view."""
        ...

    def labelling(self, view: FeatureView) -> AbstractContextManager[LabellingWork]:
        """A unit of work on labels."""
        ...


class Outbox(Protocol):
    """Decisions that have not left yet."""

    def drain(self, limit: int, send: Callable[[Sequence[OutboxEntry]], None]) -> int:
        """Hand the oldest entries to `send`, and remove them once it has returned.

        Only one drains at a time, whatever the number of processes, so that the order of each customer holds; another
        one finds nothing to do. If `send` raises, nothing is removed; if the removal fails after it, the entries are
        sent again: delivery is at least once.

        Returns:
            How many were removed; 0 when there are none or another one drains.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...


class EventPublisher(Protocol):
    """A stream that events are sent to."""

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        """Send events; returns once all are accepted. Those of one key keep their order.

        Raises:
            Transient: Some may have been accepted; sending them again is safe.
        """
        ...


class Partitions(Protocol):
    """Time partitions of the tables that grow with event time."""

    def make(self, start_us: int, end_us: int) -> int:
        """Make the partitions that are missing for event times of a span, its end not included; returns how many.

        Idempotent, also when several do it at once; deciding does not wait for it.

        Raises:
            InvalidInput: The span is empty or out of range.
            Transient: The store cannot be reached now.
        """
        ...


class Dependency(Protocol):
    """Something an app cannot serve without."""

    @property
    def name(self) -> str:
        """A short name for people, such as `blob container probes`."""
        ...

    def check(self) -> None:
        """Return if it can be used now; cheap enough to be asked every few seconds.

        Raises:
            TollgateError: It cannot; the message says why.
        """
        ...


class ArchivedScorers(Protocol):
    """Every model bundle that ever decided."""

    def find(self, bundle_digest: str) -> Scorer | None:
        """The model of a bundle, or None if it is not kept; cheap when asked again.

        Raises:
            Transient: It cannot be fetched now.
            BrokenInvariant: It is kept and cannot be used.
        """
        ...


class ArchiveSnapshot(Protocol):
    """What the ledger held at one moment, to be read in any order, in bounded memory.

    Every method raises Transient if the store cannot be reached now, and BrokenInvariant for rows that no release
    wrote. Streams must be read to their end, or left, before the next one is begun.
    """

    def decision(self, transaction_id: TransactionId) -> StoredDecision | None:
        """One decision; None if there is none."""
        ...

    def histories(self, entity: Entity, selection: Selection) -> Iterator[HistoryPart]:
        """All rows of the selected entities that have a transaction in the selected time.

        Cost: one sort of the transactions by the entity's key.
        """
        ...

    def strays(self) -> Iterator[Stray]:
        """Rows whose transaction is not there; labels that wait for theirs are none."""
        ...

    def extents(self, since_us: int | None, until_us: int | None) -> Sequence[Extent]:
        """The writers with blocks recorded in a range of our clock, by writer; every block without bounds."""
        ...

    def blocks(self, extents: Sequence[Extent] | None) -> Iterator[StoredBlock]:
        """The blocks of these parts, or all: by writer, then falling sequence."""
        ...

    def logged(self, extents: Sequence[Extent] | None) -> Iterator[StoredDecision]:
        """The decisions that name a block of these parts, or all: by writer, falling sequence, leaf."""
        ...

    def seals(self) -> Iterator[StoredSeal]:
        """The copies of the seals, by number."""
        ...


class Archive(Protocol):
    """Everything that the ledger keeps, read-only."""

    def snapshot(self) -> AbstractContextManager[ArchiveSnapshot]:
        """What it holds at this moment; whatever is committed later stays out.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...


class Seals(Protocol):
    """Where seals lie that whoever writes the log cannot change."""

    def put(self, number: int, data: bytes) -> bool:
        """Keep a seal; a seal is never overwritten. Returns whether this call did.

        Raises:
            Transient: It may or may not have been kept; `get` tells.
        """
        ...

    def get(self, number: int) -> bytes | None:
        """A seal's canonical bytes, or None.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...


class SealedLedger(Protocol):
    """The ledger, as who seals it sees it."""

    def heads(self, since_us: int | None) -> Sequence[Head]:
        """The last block of each writer that recorded one since then, by writer; of all writers for None.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...

    def last_seal(self) -> StoredSeal | None:
        """The copy of the last seal.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...

    def recent_seals(self, since_us: int) -> Sequence[StoredSeal]:
        """The copies of the seals that were made since then, by number.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...

    def mirror(self, seal: StoredSeal) -> None:
        """Keep a copy of a seal. Idempotent: the first copy of a number stays.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...


class Erasure(Protocol):
    """Where customers are forgotten."""

    def erase(self, customer_id: CustomerId, reason: str, forgotten_at_us: int) -> Erased | None:
        """Forget a customer, all or nothing; None if none of this name is known.

        The raw transactions stay, under a name that leads nowhere, so that everything about other customers can still
        be computed. It takes the locks that deciding takes, in the same order.

        Raises:
            Transient: Nothing was changed, or everything was: asking again tells.
        """
        ...
