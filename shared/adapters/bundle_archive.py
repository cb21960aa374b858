"""Every bundle that ever decided, from where bundles are kept; the last few stay in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from shared.domain.bundle import Bundle, open_bundle
from shared.domain.errors import NotFound
from shared.ports.models import BundleStore, Scorer

MOST_HELD: Final = 4
"""Decisions come in the order of entities, so those of several bundles come mixed; a bundle takes some 10 MB."""


class BundleArchive:
    """Finds the model of a decision; for one thread."""

    def __init__(self, store: BundleStore, load: Callable[[Bundle], Scorer], most_held: int = MOST_HELD) -> None:
        """Fetch nothing yet.

        Args:
            store: Where bundles are.
            load: Makes a scorer of a checked bundle.
            most_held: How many stay in memory.
        """
        self._store = store
        self._load = load
        self._most_held = most_held
        self._held: OrderedDict[str, Scorer] = OrderedDict()

    def find(self, bundle_digest: str) -> Scorer | None:
        """The model of a bundle, or None if it is not kept."""
        scorer = self._held.get(bundle_digest)
        if scorer is None:
            try:
                files = self._store.get(bundle_digest)
            except NotFound:
                return None
            scorer = self._load(open_bundle(files, bundle_digest))
            self._held[bundle_digest] = scorer
            if len(self._held) > self._most_held:
                self._held.popitem(last=False)
        self._held.move_to_end(bundle_digest)
        return scorer
