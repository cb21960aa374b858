"""The registry of models and the queue before it, as ports.

Whoever trains or promotes puts a record into the queue and goes on; a timer takes it from there to the registry, which
may be down for as long as it likes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.domain.bundle import Bundle
from shared.domain.bundle_pointer import Pointer
from shared.domain.pipeline import Evidence
from shared.domain.registry import RegistryRecord, RunRecord
from shared.domain.registry_rows import MeasuredRows


class RunRecords(Protocol):
    """Where records are left for the registry."""

    def enqueue(self, record: RegistryRecord) -> bool:
        """Leave a record; False if one of its key waits already, or if there is no registry.

        Idempotent. Waits for no registry.

        Raises:
            Transient: The queue cannot be reached now.
        """
        ...


@dataclass(frozen=True, slots=True)
class WaitingRecord:
    """A record that the registry does not have yet.

    Attributes:
        number: Its place in the queue.
        document: What `write_record` made of it; unread, so that one that cannot be read does not hide the others.
        attempts: How many have failed.
    """

    number: int
    document: Evidence
    attempts: int


class WaitingRecords(Protocol):
    """The queue as its emptier sees it. Every method raises Transient if the queue cannot be reached now."""

    def due(self, now_us: int, limit: int) -> Sequence[WaitingRecord]:
        """Records whose time has come, the oldest first."""
        ...

    def settle(self, number: int) -> None:
        """Forget a record, because the registry has it. Idempotent."""
        ...

    def put_off(self, number: int, next_at_us: int, error: str) -> None:
        """Note why an attempt failed, and when the next one is due."""
        ...

    def count(self) -> int:
        """How many records wait, due or not."""
        ...


class ModelRegistry(Protocol):
    """What people look trainings and models up in. Calls may be repeated, also after one that stopped half-way."""

    def has(self, record: RunRecord) -> bool:
        """Whether a run was written to its end.

        Raises:
            Transient: The registry cannot be reached now.
        """
        ...

    def write(self, record: RunRecord, bundle: Mapping[str, bytes], plots: Mapping[str, bytes]) -> None:
        """Keep a run with its files, and its bundle as a version of the registered model.

        Args:
            record: The run.
            bundle: Files of the bundle by name, kept as they are.
            plots: PNG images by file name.

        Raises:
            Transient: The registry cannot be reached now.
            BrokenInvariant: It refuses for good.
        """
        ...

    def give(self, state: Pointer) -> None:
        """Give a role's alias to the version of a bundle, or to none; a state older than the known one moves nothing.

        Raises:
            NotFound: No version of this bundle was written yet.
            Transient: The registry cannot be reached now.
            BrokenInvariant: It refuses for good.
        """
        ...


class MeasuredRowStore(Protocol):
    """Where the rows are kept that a bundle was measured on, for the pictures of its run."""

    def put(self, bundle_digest: str, rows: MeasuredRows) -> None:
        """Keep the rows of a bundle. Idempotent: the first ones stay.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...

    def get(self, bundle_digest: str) -> MeasuredRows | None:
        """The rows of a bundle, or None if none were kept.

        Raises:
            Transient: The store cannot be reached now.
            BrokenInvariant: They cannot be read.
        """
        ...


class ModelPlots(Protocol):
    """Draws what a model does on its test span."""

    def draw(self, bundle: Bundle, rows: MeasuredRows) -> dict[str, bytes]:
        """PNG images by file name, of fixed sizes; the same rows give the same pictures."""
        ...
