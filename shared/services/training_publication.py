"""Bundles into a store without an account of promotions, such as a folder: keep one, give it a part.

Where there is an account, `succession` gives parts; a pointer that was set here is entered there afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.domain.bundle_manifest import read_manifest
from shared.domain.bundle_pointer import Pointed, Pointer, Role
from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.ports.clock import Clock
from shared.ports.models import BundleStore


def next_version(store: BundleStore, name: str) -> int:
    """One more than the greatest version of a model in the store; 1 for its first.

    Two trainings at the same time may get the same one; their digests tell them apart. Manifests of a format that this
    release cannot read are passed over.

    Raises:
        Transient: The store cannot be reached now.
    """
    greatest = 0
    for digest in store.digests():
        try:
            manifest = read_manifest(store.manifest(digest))
        except BrokenInvariant:
            continue
        if manifest.name == name:
            greatest = max(greatest, manifest.version)
    return greatest + 1


def publish(
    store: BundleStore, files: Mapping[str, bytes], role: Role, *, clock: Clock, author: str, reason: str
) -> Pointed:
    """Keep a bundle and give it a part.

    Idempotent: a bundle that plays the part already is left there, without another state in the history.

    Args:
        store: Where to.
        files: Of the bundle.
        role: The part.
        clock: Dates the change.
        author: Who publishes.
        reason: Why, for people.

    Raises:
        BrokenInvariant: The files are no bundle that this release would open.
        Conflict: The role was given to another bundle meanwhile; this one is kept without a part.
        Transient: The store cannot be reached now; publishing again is safe.
    """
    digest = store.put(files)
    return give(store, digest, role, clock=clock, author=author, reason=reason)


def publish_first(
    store: BundleStore, files: Mapping[str, bytes], role: Role, *, clock: Clock, author: str, reason: str
) -> Pointed:
    """Keep a bundle and give it a part that nobody plays: for a deployment whose database is not there yet.

    Raises:
        InvalidInput: Another bundle plays the part; this one is kept without.
        BrokenInvariant: The files are no bundle that this release would open.
        Conflict: The role was given to another bundle meanwhile; this one is kept without a part.
        Transient: The store cannot be reached now; publishing again is safe.
    """
    digest = store.put(files)
    current = store.pointer(role).digest
    if current not in (None, digest):
        raise InvalidInput("role", f"{role} is {current[:12]} already; {digest} is kept without a part")
    return give(store, digest, role, clock=clock, author=author, reason=reason)


def give(store: BundleStore, digest: str | None, role: Role, *, clock: Clock, author: str, reason: str) -> Pointed:
    """Give a part to a bundle of the store, or to nobody.

    Raises:
        Conflict: The role was given to another bundle meanwhile.
        NotFound: There is no such bundle.
        Transient: The store cannot be reached now; giving it again is safe.
    """
    current = store.pointer(role)
    if current.pointer is not None and current.digest == digest:
        return current
    change = Pointer(role, digest, current.next_number, clock.now_us(), author, reason)
    return store.point(change, current.tag)
