"""How pointers follow the account of promotions: whoever comes next finishes what a writer left half-done.

The account is the authority. Its rows that the pointer does not show yet are written to it, one after the other and
each under the pointer's tag, so two who do it at once do it once. A pointer that is ahead was set without the account,
by an earlier release or a tool: its states are entered into the account as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.domain.bundle_manifest import Manifest, read_manifest
from shared.domain.bundle_pointer import Pointed, Pointer, Role
from shared.domain.errors import BrokenInvariant, Conflict, NotFound, TollgateError, Transient
from shared.ports.models import BundleStore
from shared.ports.registry import RunRecords
from shared.ports.succession import Action, Change, KnownModel, ModelStatus, Promotions

_log = logging.getLogger(__name__)

ATTEMPTS: Final = 20
"""Each failed one means that somebody else got on with the same work."""


def follow(store: BundleStore, promotions: Promotions, records: RunRecords | None, now_us: int) -> int:
    """Bring the pointers of all roles and the account together. Idempotent.

    Args:
        store: Where pointers are.
        promotions: The account.
        records: The queue of the model registry, which gets every state that is written, at least once; None for none.
        now_us: Dates the registration of models that are adopted, microseconds since 1970 UTC.

    Returns:
        How many states were written, to either side; 0 when nothing was amiss.

    Raises:
        BrokenInvariant: Both have a state of one number, and the two differ.
        Transient: One of them cannot be reached now; calling again goes on.
    """
    return sum(_Following(store, promotions, records, now_us).follow(role) for role in Role)


def known_model(digest: str, manifest: Manifest, now_us: int) -> KnownModel:
    """A model as it is registered, from what its bundle says of itself."""
    learnt = [span for name, span in manifest.spans.items() if name != "test"] or list(manifest.spans.values())
    return KnownModel(
        digest=digest,
        name=manifest.name,
        version=manifest.version,
        view=manifest.view,
        status=ModelStatus.CANDIDATE,
        metrics={metric.name: (metric.value, metric.low, metric.high) for metric in manifest.metrics},
        trained_from_us=min(span.start_us for span in learnt),
        trained_until_us=max(span.end_us for span in learnt),
        registered_at_us=now_us,
    )


@dataclass(frozen=True, slots=True)
class _Following:
    """What following needs."""

    store: BundleStore
    promotions: Promotions
    records: RunRecords | None
    now_us: int

    def follow(self, role: Role) -> int:
        """Bring one role together; returns how many states were written."""
        written = 0
        for _ in range(ATTEMPTS):
            # The pointer first: a row that is committed after this look is newer than what the pointer can show.
            pointed = self.store.pointer(role)
            number = pointed.pointer.number if pointed.pointer else 0
            rows = self.promotions.since(role, max(number - 1, 0))
            try:
                if number and not rows:
                    written += self._adopt(role)
                    continue
                if number and rows[0].pointer != pointed.pointer:
                    raise BrokenInvariant(f"state {number} of {role} is one in the account and another in its pointer")
                return written + self._write(pointed, rows[1:] if number else rows)
            except Conflict:
                continue
        raise Transient(f"the pointer of {role} changes faster than it can be followed")

    def _write(self, pointed: Pointed, rows: Sequence[Change]) -> int:
        for row in rows:
            self._queue(row.pointer)  # before the pointer: whoever dies in between is followed by one who queues again
            pointed = self.store.point(row.pointer, pointed.tag)
            _log.info(
                "a pointer followed",
                extra={
                    "role": row.pointer.role.value,
                    "bundle_digest": row.pointer.digest,
                    "number": row.pointer.number,
                },
            )
        return len(rows)

    def _adopt(self, role: Role) -> int:
        """Enter the states that the account lacks."""
        heads = self.promotions.heads()
        numbers = {one: heads[one].pointer.number if one in heads else 0 for one in Role}
        states = [state for state in self.store.history(role) if state.number > numbers[role]]
        for digest in {state.digest for state in states if state.digest is not None}:
            try:
                self.promotions.register(known_model(digest, read_manifest(self.store.manifest(digest)), self.now_us))
            except (BrokenInvariant, Conflict, NotFound):
                _log.warning("a model that is pointed to cannot be registered", extra={"bundle_digest": digest})
        self.promotions.append([Change(state, Action.ADOPT) for state in states], numbers)
        for state in states:
            _log.warning(
                "a pointer was set without the account",
                extra={"role": role.value, "bundle_digest": state.digest, "number": state.number},
            )
            self._queue(state)
        return len(states)

    def _queue(self, state: Pointer) -> None:
        if self.records is None:
            return
        try:
            self.records.enqueue(state)
        except TollgateError:  # a registry never stands in the way of a promotion
            _log.warning("a change was not queued for the registry", extra={"role": state.role.value}, exc_info=True)
