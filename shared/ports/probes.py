"""Probes and what an app depends on, as ports."""

from __future__ import annotations

from typing import Protocol

from shared.domain.probe import ProbeReceipt


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
