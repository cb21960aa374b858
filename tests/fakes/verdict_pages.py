"""Pages of verdicts in memory."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class FakeVerdictPages:
    """Pages by name."""

    kept: dict[str, str] = field(default_factory=dict)

    def put(self, verdict_digest: str, page: str) -> str:
        name = f"verdicts/{verdict_digest}.html"
        self.kept.setdefault(name, page)
        return name
