"""Who decides and who is being tried, as ports: every change of a role, the verdicts behind them, the known models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from shared.domain.bundle_pointer import Pointer, Role


class Action(StrEnum):
    """What a change of a role was."""

    PROMOTE = "promote"
    """It passed the gate and became champion."""
    ACCEPT = "accept"
    """A person answers for a first champion."""
    ROLLBACK = "rollback"
    """An earlier champion decides again."""
    CHALLENGE = "challenge"
    """It became challenger."""
    SHADOW = "shadow"
    """It became shadow."""
    RETIRE = "retire"
    """The role was given to nobody."""
    ADOPT = "adopt"
    """A pointer that was set elsewhere was entered afterwards."""


class ModelStatus(StrEnum):
    """How a known model stands."""

    CANDIDATE = "candidate"
    SHADOW = "shadow"
    CHALLENGER = "challenger"
    CHAMPION = "champion"
    RETIRED = "retired"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a role.

    Attributes:
        pointer: The role's state from then on: digest, number, when, who, why.
        action: What it was.
        verdict_digest: The gate's verdict that led to it; None without.
    """

    pointer: Pointer
    action: Action
    verdict_digest: str | None = None


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model bundle that was registered.

    Attributes:
        digest: Of the bundle.
        name: The model's name.
        version: Its version.
        view: Name of its feature view.
        status: How it stands.
        metrics: Name to value, low and high, as in the manifest.
        trained_from_us: First event time it learnt from, microseconds since 1970 UTC.
        trained_until_us: The first microsecond after the last.
        registered_at_us: When it was registered, microseconds since 1970 UTC.
    """

    digest: str
    name: str
    version: int
    view: str
    status: ModelStatus
    metrics: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    trained_from_us: int = 0
    trained_until_us: int = 0
    registered_at_us: int = 0


@dataclass(frozen=True, slots=True)
class KeptVerdict:
    """A verdict of the gate as it is kept.

    Attributes:
        digest: SHA-256 of the document, 64 hexadecimal digits.
        challenger: Digest of the bundle it judges.
        champion: Digest of the one it was compared with; None if there was none.
        passed: Whether every check passed.
        document: Canonical JSON.
        run_id: The run that asked; None for a person.
        decided_at_us: When, microseconds since 1970 UTC.
    """

    digest: str
    challenger: str
    champion: str | None
    passed: bool
    document: str
    run_id: str | None
    decided_at_us: int


class Promotions(Protocol):
    """The append-only account of who played which role; pointers in Blob follow it.

    Every method raises Transient if the store cannot be reached now.
    """

    def heads(self) -> Mapping[Role, Change]:
        """The present state of every role that was ever given."""
        ...

    def since(self, role: Role, number: int) -> Sequence[Change]:
        """The changes of a role after one of its numbers, oldest first; all of them after 0."""
        ...

    def append(self, changes: Sequence[Change], seen: Mapping[Role, int], verdict: KeptVerdict | None = None) -> None:
        """Enter changes, and let the status of the models concerned follow; all or nothing.

        Args:
            changes: One after the other in each role.
            seen: The number of every role's present state that the changes were made from; 0 for none.
            verdict: Kept along with them.

        Raises:
            Conflict: A role has changed since; its words name who was faster.
        """
        ...

    def keep(self, verdict: KeptVerdict) -> bool:
        """Keep a verdict; a model that never played a role becomes refused by one that did not pass, or candidate.

        Returns:
            Whether it was not there before.
        """
        ...

    def verdict(self, challenger: str) -> KeptVerdict | None:
        """The last verdict on a bundle."""
        ...

    def register(self, model: KnownModel) -> bool:
        """Enter a model; False, and nothing changes, if its digest is known.

        Raises:
            Conflict: Another bundle has this name and version.
        """
        ...

    def models(self) -> Sequence[KnownModel]:
        """All known models, the last registered first."""
        ...
