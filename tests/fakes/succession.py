"""The account of promotions in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from shared.domain.bundle_pointer import Role
from shared.domain.errors import BrokenInvariant, Conflict, TollgateError
from shared.ports.succession import Change, KeptVerdict, KnownModel, ModelStatus


@dataclass
class FakePromotions:
    """Changes, verdicts and models; `fault` is raised by every call while it is set."""

    changes: list[Change] = field(default_factory=list)
    verdicts: dict[str, KeptVerdict] = field(default_factory=dict)
    known: dict[str, KnownModel] = field(default_factory=dict)
    fault: TollgateError | None = None

    def heads(self) -> Mapping[Role, Change]:
        self._fail()
        return {change.pointer.role: change for change in self.changes}

    def since(self, role: Role, number: int) -> Sequence[Change]:
        self._fail()
        return [one for one in self.changes if one.pointer.role is role and one.pointer.number > number]

    def append(self, changes: Sequence[Change], seen: Mapping[Role, int], verdict: KeptVerdict | None = None) -> None:
        before = self.heads()
        for role, number in seen.items():
            head = before.get(role)
            if (head.pointer.number if head else 0) != number:
                if head is None:
                    raise BrokenInvariant(f"the account of {role} is shorter than it was")
                who = "nobody" if head.pointer.digest is None else head.pointer.digest[:12]
                raise Conflict("role", f"{role}: {who} by {head.pointer.author} ({head.pointer.reason})")
        if verdict is not None:
            self.verdicts.setdefault(verdict.digest, verdict)
        self.changes += changes
        heads = self.heads()
        touched = [*changes, *(before[one.pointer.role] for one in changes if one.pointer.role in before)]
        for digest in {change.pointer.digest for change in touched} & set(self.known):
            roles = [role for role in Role if role in heads and heads[role].pointer.digest == digest]
            status = ModelStatus(roles[0].value) if roles else ModelStatus.RETIRED
            self.known[str(digest)] = replace(self.known[str(digest)], status=status)

    def keep(self, verdict: KeptVerdict) -> bool:
        self._fail()
        if verdict.digest in self.verdicts:
            return False
        self.verdicts[verdict.digest] = verdict
        model = self.known.get(verdict.challenger)
        if model is not None and model.status in {ModelStatus.CANDIDATE, ModelStatus.REFUSED}:
            status = ModelStatus.CANDIDATE if verdict.passed else ModelStatus.REFUSED
            self.known[model.digest] = replace(model, status=status)
        return True

    def verdict(self, challenger: str) -> KeptVerdict | None:
        self._fail()
        found = [verdict for verdict in self.verdicts.values() if verdict.challenger == challenger]
        return min(found, key=lambda verdict: (-verdict.decided_at_us, verdict.digest), default=None)

    def register(self, model: KnownModel) -> bool:
        self._fail()
        if model.digest in self.known:
            return False
        for other in self.known.values():
            if (other.name, other.version) == (model.name, model.version):
                raise Conflict("version", f"{model.version} of {model.name} is the bundle {other.digest[:12]} already")
        self.known[model.digest] = model
        return True

    def models(self) -> Sequence[KnownModel]:
        self._fail()
        return sorted(self.known.values(), key=lambda model: (-model.registered_at_us, model.digest))

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault
