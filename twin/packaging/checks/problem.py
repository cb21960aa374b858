"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Rule = Literal[
    "auth-level",
    "binding-type",
    "function-app",
    "hashed",
    "host.json",
    "imports",
    "index",
    "length",
    "local-requirement",
    "no-relative-import",
    "no-try",
    "no-worker",
    "one-app",
    "one-file",
    "pinned",
    "requirements",
    "requirements-locked",
    "runtime-pinned",
    "schedule",
    "secret",
    "setting",
    "settings",
    "settings-missing",
    "settings-unknown",
    "unique-names",
]
"""The stable names of the rules; docs/packages.md says what each wants."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding: the file, the rule, what is wrong, and the line where there is one (from 1)."""

    file: Path
    rule: Rule
    message: str
    line: int | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line is not None else str(self.file)
        return f"{place}: {self.rule}: {self.message}"
