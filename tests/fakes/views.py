"""What is kept of feature views, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from shared.domain.errors import BrokenInvariant, TollgateError
from shared.domain.kept_view import KeptView


@dataclass
class FakeViewBook:
    """Views by name; `fault` is raised by every call while it is set."""

    views: dict[str, KeptView] = field(default_factory=dict)
    fault: TollgateError | None = None

    def kept(self) -> Sequence[KeptView]:
        self._fail()
        return [self.views[name] for name in sorted(self.views)]

    def keep(self, view: KeptView) -> KeptView:
        self._fail()
        return self.views.setdefault(view.name, view)

    def note(self, view: KeptView) -> None:
        self._fail()
        if view.name not in self.views:
            raise BrokenInvariant(f"the feature view {view.name} is not kept")
        self.views[view.name] = replace(
            self.views[view.name],
            status=view.status,
            place=view.place,
            entities=view.entities,
            transactions=view.transactions,
            updated_at_us=view.updated_at_us,
            completed_at_us=view.completed_at_us,
        )

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault
