"""The model that decides, kept up to date: polls the champion's pointer and swaps scorers while requests go on.

A new bundle is fetched, checked and run through its probes in a thread of its own; only when all of that succeeded does
one assignment make it current. A bundle that is refused is named with its reason, and the last good one goes on
serving; so it does while the store cannot be reached.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from shared.domain.bundle import Bundle, open_bundle
from shared.domain.bundle_pointer import Role
from shared.domain.errors import BrokenInvariant, InvalidInput, TollgateError, Transient
from shared.domain.feature_view import FeatureView
from shared.ports.models import BundleStore, Scorer

_log = logging.getLogger(__name__)

POLL_S: Final = 2.0
"""Seconds between two looks at the pointer: one request of a few hundred bytes each. A change must reach every process
within 5 s; fetching and checking a bundle takes its share of them."""

RETRY_REFUSED_S: Final = 60.0
"""Seconds until a refused bundle is fetched again; a half-uploaded one may have been completed."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A bundle that is not served although it is pointed to.

    Attributes:
        digest: Which one.
        reason: Why, for people.
    """

    digest: str
    reason: str

    @property
    def problem(self) -> str:
        """Both in a sentence."""
        return f"bundle {self.digest[:12]} is refused: {self.reason}"


class BundleScorers:
    """The source of the scorer of a role."""

    def __init__(
        self,
        store: BundleStore,
        load: Callable[[Bundle], Scorer],
        *,
        role: Role = Role.CHAMPION,
        views: Callable[[FeatureView], str] | None = None,
        poll_s: float = POLL_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is fetched before `refresh` or `start`.

        Args:
            store: Where bundles and pointers are.
            load: Makes a scorer of a checked bundle.
            role: Whose scorer.
            views: Says why a bundle of a feature view may not decide, nothing if it may; None for every one.
            poll_s: Seconds between two looks.
            monotonic: Seconds of a clock that never goes back.
        """
        self._store = store
        self._load = load
        self._role = role
        self._views = views
        self._poll_s = poll_s
        self._monotonic = monotonic
        self._scorer: Scorer | None = None
        self._refusal: Refusal | None = None
        self._refused_at_s = 0.0
        self._problem = "it was not looked for yet"
        self._refreshing = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def current(self) -> Scorer:
        """The scorer of this moment; the same object until another one takes over.

        Raises:
            Transient: There is none yet; the message says why.
        """
        scorer = self._scorer
        if scorer is None:
            raise Transient(f"no {self._role} yet: {self._problem}")
        return scorer

    @property
    def refusal(self) -> Refusal | None:
        """The bundle that is pointed to and refused, if it is so."""
        return self._refusal

    @property
    def problem(self) -> str:
        """What went wrong at the last look; empty if nothing did."""
        return self._problem

    def refresh(self) -> bool:
        """Look at the pointer, and swap if it points to another bundle that is good.

        Never raises an error of the tree: what goes wrong is logged and kept as `problem`.

        Returns:
            Whether the scorer was swapped.
        """
        with self._refreshing:
            try:
                return self._look()
            except TollgateError as error:
                if str(error) != self._problem:
                    _log.warning("the pointer cannot be followed", extra={"role": self._role.value}, exc_info=True)
                self._problem = str(error)
                return False

    def start(self) -> None:
        """Refresh in the background from now on; the first look begins at once. A second call does nothing."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name=f"scorers-{self._role}", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the background thread and wait for it; what is current stays so."""
        if self._thread is not None:
            self._stopping.set()
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while True:
            try:
                self.refresh()
            except Exception:  # noqa: BLE001  # the outermost line of the thread
                # The thread must outlive whatever nobody foresaw: without it no bundle is ever taken up again.
                self._problem = "the last look at the pointer failed unexpectedly; the log has the trace"
                _log.exception("a look at the pointer failed", extra={"role": self._role.value})
            if self._stopping.wait(self._poll_s):
                return

    def _look(self) -> bool:
        digest = self._store.pointer(self._role).digest
        scorer = self._scorer
        if digest is None:
            self._problem = f"no bundle is {self._role}"
            self._refusal = None
            return False
        if scorer is not None and scorer.bundle_digest == digest:
            self._problem, self._refusal = "", None
            return False
        refused = self._refusal
        again = self._monotonic() - self._refused_at_s >= RETRY_REFUSED_S
        if refused is not None and refused.digest == digest and not again:
            self._problem = refused.problem
            return False
        try:
            loaded = self._loaded(digest)
        except (BrokenInvariant, InvalidInput) as error:
            self._refuse(digest, error)
            return False
        self._scorer = loaded
        self._problem, self._refusal = "", None
        _log.info(
            "a bundle took over",
            extra={"role": self._role.value, "bundle_digest": digest, "model_version": loaded.version},
        )
        return True

    def _loaded(self, digest: str) -> Scorer:
        bundle = open_bundle(self._store.get(digest), digest)
        refused = "" if self._views is None else self._views(bundle.view)
        if refused:
            raise BrokenInvariant(f"its feature view {bundle.view.name} may not decide: {refused}")
        return self._load(bundle)

    def _refuse(self, digest: str, error: TollgateError) -> None:
        self._refusal = Refusal(digest, str(error))
        self._refused_at_s = self._monotonic()
        self._problem = self._refusal.problem
        _log.error("a bundle is refused", extra={"role": self._role.value, "bundle_digest": digest}, exc_info=error)
