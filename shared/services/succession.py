"""The use case of succession: who becomes champion, challenger and shadow, and who decides again after a rollback.

A change is first committed to the account of promotions, then written to the pointer that the scoring apps poll. Every
call begins by finishing what an earlier writer left half-done (`succession_following`), so it may die anywhere.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from shared.domain.bundle import Bundle, open_bundle
from shared.domain.bundle_pointer import Pointer, Role
from shared.domain.errors import BrokenInvariant, InvalidInput, NotFound, Transient
from shared.domain.feature_view import FeatureView
from shared.domain.kept_view import KeptView, ViewStatus, why_refused
from shared.domain.promotion import Acceptance, Verdict, read_verdict, verdict_digest, write_verdict
from shared.ports.clock import Clock
from shared.ports.models import BundleStore
from shared.ports.registry import RunRecords
from shared.ports.succession import Action, Change, KeptVerdict, KnownModel, Promotions
from shared.ports.views import ViewBook
from shared.services.succession_following import follow, known_model

_log = logging.getLogger(__name__)

SHORTEST_PREFIX: Final = 6
"""Hexadecimal digits of a digest that people may shorten it to."""

_PREFIX: Final = re.compile(r"[0-9a-f]{6,64}", re.ASCII)

_TRIED: Final = {Role.CHALLENGER: Action.CHALLENGE, Role.SHADOW: Action.SHADOW}


class _Word(NamedTuple):
    """Who answers for a change, why, and the verdict that it rests on."""

    author: str
    reason: str
    verdict_digest: str | None = None


class Succession:
    """Changes roles.

    Whatever a change says that it raises, it may also raise:

    - Conflict: somebody else changed a role meanwhile, and is named; nothing was changed by this call;
    - NotFound: there is no such bundle;
    - BrokenInvariant: the bundle cannot be used, because it is damaged or of another format;
    - Transient: the account or the pointers cannot be reached now. Calling again is safe: a role that is given already
      is left as it is, and a change that was committed is brought to its end.
    """

    def __init__(
        self,
        store: BundleStore,
        promotions: Promotions,
        clock: Clock,
        *,
        views: ViewBook,
        records: RunRecords | None = None,
    ) -> None:
        """Prepare.

        Args:
            store: Where bundles and pointers are.
            promotions: The account of who played which role.
            clock: Dates changes.
            views: What is kept of feature views; a champion's must be complete.
            records: The queue of the model registry, where aliases follow; None for no registry.
        """
        self._store = store
        self._promotions = promotions
        self._clock = clock
        self._views = views
        self._records = records

    def promote(self, digest: str, *, author: str, reason: str) -> Change:
        """Make a bundle champion that the gate has let through, compared with the champion of this moment.

        A part that it played as challenger or shadow ends with it. The champion itself is left where it is.

        Raises:
            InvalidInput: The gate has not judged it, refused it, or compared it with another champion; or its feature
                view is not complete.
        """
        heads = self._heads()
        champion = _digest(heads, Role.CHAMPION)
        if champion == digest:
            return heads[Role.CHAMPION]
        bundle = self._fit_to_decide(digest)
        verdict = self._promotions.verdict(digest)
        if verdict is None:
            raise InvalidInput("digest", "has no verdict of the gate; a first champion can be accepted with a reason")
        if not verdict.passed:
            refusals = ", ".join(check.name for check in _read(verdict).refusals)
            raise InvalidInput("digest", f"was refused by the gate ({refusals}), verdict {verdict.digest[:12]}")
        if verdict.champion != champion:
            raise InvalidInput(
                "digest",
                f"was compared with {_short(verdict.champion)}, and champion is {_short(champion)}: judge again",
            )
        return self._enthrone(bundle, Action.PROMOTE, heads, _Word(author, reason, verdict.digest))

    def accept(self, digest: str, *, author: str, reason: str) -> Change:
        """Make a bundle the first champion on a person's word, although it misses the gate's floors or was not judged.

        The word becomes part of the verdict, which still has not passed.

        Raises:
            InvalidInput: There is a champion; the gate found more amiss than floors, or nothing at all; nobody answers
                for it; or its feature view is not complete.
        """
        heads = self._heads()
        champion = _digest(heads, Role.CHAMPION)
        if champion == digest:
            return heads[Role.CHAMPION]
        if champion is not None:
            raise InvalidInput("accept", f"is only for a first champion; champion is {_short(champion)}")
        bundle = self._fit_to_decide(digest)
        acceptance = Acceptance(author, reason, self._clock.now_us())
        judged = self._promotions.verdict(digest)
        if judged is None:
            return self._enthrone(bundle, Action.ACCEPT, heads, _Word(author, reason))
        if judged.champion is not None:
            raise InvalidInput("accept", "needs a verdict without a champion: judge again")
        accepted = _kept(_read(judged).accepted(acceptance), judged.run_id, acceptance.accepted_at_us)
        return self._enthrone(bundle, Action.ACCEPT, heads, _Word(author, reason, accepted.digest), accepted)

    def rollback(self, *, author: str, reason: str, to: str | None = None) -> Change:
        """Let an earlier champion decide again; by default the one before.

        Rolling back again goes one further back: a champion that was taken back is none to go back to, unless it is
        named.

        Args:
            author: Who.
            reason: Why.
            to: Digest of an earlier champion.

        Raises:
            InvalidInput: There is none before, or the named one was never champion; or its feature view is not
                complete.
        """
        heads = self._heads()
        past = self._promotions.since(Role.CHAMPION, 0)
        line = line_of(past)
        if to is None and len(line) < 2:
            raise InvalidInput("rollback", "needs an earlier champion, and there is none")
        if to is not None and to not in {change.pointer.digest for change in past}:
            raise InvalidInput("to", f"{_short(to)} was never champion")
        target = line[-2] if to is None else to
        if _digest(heads, Role.CHAMPION) == target:
            return heads[Role.CHAMPION]
        return self._enthrone(self._fit_to_decide(target), Action.ROLLBACK, heads, _Word(author, reason))

    def appoint(
        self, role: Role, digest: str, *, author: str, reason: str, verdict_digest: str | None = None
    ) -> Change:
        """Make a bundle challenger or shadow; it decides nothing.

        Args:
            role: Not the champion's.
            digest: Of the bundle.
            author: Who.
            reason: Why.
            verdict_digest: Of what the gate said of it, if it was asked.

        Raises:
            InvalidInput: The role is the champion's, or the bundle is champion.
        """
        if role not in _TRIED:
            raise InvalidInput("role", "must be challenger or shadow")
        heads = self._heads()
        if _digest(heads, role) == digest:
            return heads[role]
        if _digest(heads, Role.CHAMPION) == digest:
            raise InvalidInput("digest", f"{_short(digest)} is champion")
        self._register(self._opened(digest))
        word = _Word(author, reason, verdict_digest)
        return self._commit([self._next(heads, role, digest, _TRIED[role], word)], heads)

    def retire(self, role: Role, *, author: str, reason: str) -> Change | None:
        """Take the part of challenger or shadow away; None if nobody ever played it.

        Raises:
            InvalidInput: The role is the champion's, which is replaced or rolled back but never left empty.
        """
        if role not in _TRIED:
            raise InvalidInput("role", "must be challenger or shadow; a champion is replaced or rolled back")
        heads = self._heads()
        if _digest(heads, role) is None:
            return heads.get(role)
        return self._commit([self._next(heads, role, None, Action.RETIRE, _Word(author, reason))], heads)

    def install(self, files: Mapping[str, bytes], role: Role, *, author: str, reason: str) -> Change:
        """Keep a new bundle and give it a part: that of the champion only where there is none yet.

        Raises:
            InvalidInput: There is a champion; the bundle is kept as a candidate, for the gate to judge.
            Conflict: Another bundle has its name and version.
        """
        digest = self._store.put(files)
        self._register(self._opened(digest))
        if role is not Role.CHAMPION:
            return self.appoint(role, digest, author=author, reason=reason)
        champion = _digest(self._heads(), Role.CHAMPION)
        if champion not in (None, digest):
            raise InvalidInput(
                "role", f"champion is {_short(champion)}; {digest} is kept as a candidate, and the gate decides"
            )
        return self.accept(digest, author=author, reason=reason)

    def judged(self, document: bytes, run_id: str | None, decided_at_us: int) -> KeptVerdict:
        """Keep a verdict of the gate; its bundle becomes a candidate, or refused. Idempotent.

        Raises:
            BrokenInvariant: The document is no verdict.
            Transient: The account or the store cannot be reached now.
        """
        verdict = _kept(read_verdict(document), run_id, decided_at_us)
        try:
            self._register(self._opened(verdict.challenger))
        except (InvalidInput, BrokenInvariant):
            _log.warning("a judged model cannot be registered", extra={"bundle_digest": verdict.challenger})
        self._promotions.keep(verdict)
        return verdict

    def history(self, role: Role | None = None) -> Sequence[Change]:
        """Every change of a role, or of all, oldest first."""
        roles = tuple(Role) if role is None else (role,)
        found = [change for one in roles for change in self._promotions.since(one, 0)]
        return sorted(found, key=lambda change: change.pointer.changed_at_us)

    def present(self) -> Mapping[Role, Change]:
        """The present state of every role that was ever given, as the account has it."""
        return self._promotions.heads()

    def models(self) -> Sequence[KnownModel]:
        """All known models, the last registered first."""
        return self._promotions.models()

    def verdict(self, digest: str) -> KeptVerdict | None:
        """The gate's last verdict on a bundle."""
        return self._promotions.verdict(digest)

    def find(self, text: str) -> str:
        """The digest that a person means: whole, or its first `SHORTEST_PREFIX` or more digits.

        Raises:
            InvalidInput: It is no such text, or fits several bundles.
            NotFound: It fits none.
        """
        if not _PREFIX.fullmatch(text):
            raise InvalidInput("digest", f"must be {SHORTEST_PREFIX} to 64 hexadecimal digits")
        found = [digest for digest in self._store.digests() if digest.startswith(text)]
        if not found:
            raise NotFound("digest", f"{text} names no bundle of this store")
        if len(found) > 1:
            raise InvalidInput("digest", f"{text} fits {len(found)} bundles: {', '.join(map(_short, found))}")
        return found[0]

    def check(self, view: FeatureView) -> None:
        """Refuse a feature view of which no model could become champion now.

        Raises:
            InvalidInput: Entity state is not complete for it, or another definition was kept under its name.
        """
        refused = why_refused(view, self._views.kept())
        if refused:
            raise InvalidInput("view", f"{view.name} may not decide: {refused}")

    def reconcile(self) -> int:
        """Bring pointers and account together; returns how many states were written. Idempotent."""
        return follow(self._store, self._promotions, self._records, self._clock.now_us())

    def _heads(self) -> Mapping[Role, Change]:
        self.reconcile()
        return self._promotions.heads()

    def _opened(self, digest: str) -> Bundle:
        return open_bundle(self._store.get(digest), digest)

    def _fit_to_decide(self, digest: str) -> Bundle:
        bundle = self._opened(digest)
        self.check(bundle.view)
        # Its definition is kept from the first champion on, so that no release can change it under the same name.
        self._views.keep(KeptView.of(bundle.view, ViewStatus.COMPLETE, self._clock.now_us()))
        return bundle

    def _register(self, bundle: Bundle) -> None:
        self._promotions.register(known_model(bundle.digest, bundle.manifest, self._clock.now_us()))

    def _enthrone(
        self,
        bundle: Bundle,
        action: Action,
        heads: Mapping[Role, Change],
        word: _Word,
        verdict: KeptVerdict | None = None,
    ) -> Change:
        """Make a bundle champion; a part that it was tried in ends with it."""
        self._register(bundle)
        left = _Word(word.author, "it became champion")
        changes = [
            self._next(heads, Role.CHAMPION, bundle.digest, action, word),
            *(
                self._next(heads, role, None, Action.RETIRE, left)
                for role in _TRIED
                if _digest(heads, role) == bundle.digest
            ),
        ]
        return self._commit(changes, heads, verdict)

    def _next(
        self, heads: Mapping[Role, Change], role: Role, digest: str | None, action: Action, word: _Word
    ) -> Change:
        pointer = Pointer(role, digest, _number(heads, role) + 1, self._clock.now_us(), word.author, word.reason)
        return Change(pointer, action, word.verdict_digest)

    def _commit(
        self, changes: Sequence[Change], heads: Mapping[Role, Change], verdict: KeptVerdict | None = None
    ) -> Change:
        self._promotions.append(changes, {role: _number(heads, role) for role in Role}, verdict)
        first = changes[0]
        _log.info(
            "a role has changed",
            extra={
                "role": first.pointer.role.value,
                "action": first.action.value,
                "bundle_digest": first.pointer.digest,
                "number": first.pointer.number,
            },
        )
        try:
            self.reconcile()
        except Transient as error:
            raise Transient(
                f"the change is recorded as state {first.pointer.number} of {first.pointer.role}, and its pointer"
                f" follows once the store can be reached: {error}"
            ) from error
        return first


def line_of(changes: Sequence[Change]) -> list[str]:
    """The champions that a rollback can go back along, the present one last.

    Args:
        changes: All changes of the champion's role, oldest first.
    """
    line: list[str] = []
    for change in changes:
        digest = change.pointer.digest
        if digest is None:
            continue
        if change.action is Action.ROLLBACK and digest in line:
            while line[-1] != digest:
                line.pop()
        elif not line or line[-1] != digest:
            line.append(digest)
    return line


def _digest(heads: Mapping[Role, Change], role: Role) -> str | None:
    return heads[role].pointer.digest if role in heads else None


def _number(heads: Mapping[Role, Change], role: Role) -> int:
    return heads[role].pointer.number if role in heads else 0


def _short(digest: str | None) -> str:
    return "nobody" if digest is None else digest[:12]


def _read(verdict: KeptVerdict) -> Verdict:
    return read_verdict(verdict.document.encode("ascii"))


def _kept(verdict: Verdict, run_id: str | None, decided_at_us: int) -> KeptVerdict:
    document = write_verdict(verdict)
    return KeptVerdict(
        verdict_digest(document),
        verdict.challenger,
        verdict.champion,
        verdict.passed,
        document.decode("ascii"),
        run_id,
        decided_at_us,
    )
