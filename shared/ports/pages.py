"""Pages about verdicts, as a port."""

from __future__ import annotations

from typing import Protocol


class VerdictPages(Protocol):
    """Where people read why a model was refused."""

    def put(self, verdict_digest: str, page: str) -> str:
        """Keep the page of a verdict; returns its name. Idempotent.

        Raises:
            Transient: The store cannot be reached now.
        """
        ...
