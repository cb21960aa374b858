"""Rows that expire, as a port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from shared.domain.retention import Expiring


class Expired(NamedTuple):
    """What one deletion did.

    Attributes:
        rows: Rows that were deleted, by table.
        more: Whether there may be more of them.
    """

    rows: Mapping[str, int]
    more: bool


class ExpiringRows(Protocol):
    """What can be deleted once it has expired."""

    def delete(self, what: Expiring, before_us: int, limit: int) -> Expired:
        """Delete some of the oldest rows of a kind, in one short unit of work.

        Idempotent, and safe beside writers and beside another one who deletes. Counters that are told of deleted rows
        do not fall.

        Args:
            what: Which rows.
            before_us: Only those that are older, microseconds since 1970 UTC.
            limit: At most so many; runs are deleted by whole hours, whatever their number.

        Raises:
            Transient: The store cannot be reached now.
            BrokenInvariant: The schema or a right is missing.
        """
        ...
