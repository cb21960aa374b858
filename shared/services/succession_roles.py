"""Who plays which role now, as the scoring apps can see it: from the pointers, without the account."""

from __future__ import annotations

from dataclasses import dataclass

from shared.domain.bundle_manifest import read_manifest
from shared.domain.bundle_pointer import Pointer, Role
from shared.domain.errors import BrokenInvariant, NotFound
from shared.ports.models import BundleStore


@dataclass(frozen=True, slots=True)
class RoleState:
    """A role that was ever given.

    Attributes:
        pointer: Its present state.
        name: The model's name; None for nobody, or if the bundle cannot be read.
        version: Its version; likewise.
        problem: Why the bundle cannot be read; empty if it can.
    """

    pointer: Pointer
    name: str | None = None
    version: int | None = None
    problem: str = ""


class Roles:
    """Reads the pointers of all roles; what a digest stands for is remembered, because it never changes."""

    def __init__(self, store: BundleStore) -> None:
        self._store = store
        self._known: dict[str, tuple[str, int]] = {}

    def states(self) -> list[RoleState]:
        """The roles that were ever given, the champion first. Cost: a request for each, and one for a new bundle.

        Raises:
            Transient: The store cannot be reached now.
            BrokenInvariant: A pointer cannot be read.
        """
        found = [self._store.pointer(role).pointer for role in Role]
        return [self._state(pointer) for pointer in found if pointer is not None]

    def _state(self, pointer: Pointer) -> RoleState:
        digest = pointer.digest
        if digest is None:
            return RoleState(pointer)
        if digest not in self._known:
            try:
                manifest = read_manifest(self._store.manifest(digest))
            except (BrokenInvariant, NotFound) as error:
                return RoleState(pointer, problem=str(error))
            self._known[digest] = manifest.name, manifest.version
        return RoleState(pointer, *self._known[digest])
