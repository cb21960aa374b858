"""`.funcignore`: which files of an app's folder stay behind.

The patterns are those of gitignore (https://git-scm.com/docs/gitignore#_pattern_format), as Core Tools reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Rule:
    expression: re.Pattern[str]
    negated: bool
    folders_only: bool


class IgnoreRules:
    r"""Decides about paths relative to the folder of the ignore file, with forward slashes.

    >>> rules = IgnoreRules.parse("tests/\n*.pyc\n!keep.pyc")
    >>> [rules.ignores(path) for path in ("a/tests/x.py", "b.pyc", "keep.pyc", "tests.py")]
    [True, True, False, False]
    """

    def __init__(self, rules: Iterable[_Rule]) -> None:
        self._rules = tuple(rules)

    @classmethod
    def parse(cls, text: str) -> IgnoreRules:
        """Read the lines of an ignore file; blank lines and comments count for nothing."""
        return cls(rule for line in text.splitlines() if (rule := _parse_line(line)) is not None)

    def ignores(self, path: str) -> bool:
        """Whether the file at `path` stays behind: it or a folder above it is ignored."""
        parent, _, _ = path.rpartition("/")
        return (bool(parent) and self.ignores_folder(parent)) or self._matches(path, is_folder=False)

    def ignores_folder(self, path: str) -> bool:
        """Whether everything below the folder at `path` stays behind; as in git, nothing in it can be brought back."""
        parts = path.split("/")
        return any(self._matches("/".join(parts[:end]), is_folder=True) for end in range(1, len(parts) + 1))

    def _matches(self, path: str, *, is_folder: bool) -> bool:
        verdict = False
        for rule in self._rules:
            if (is_folder or not rule.folders_only) and rule.expression.fullmatch(path):
                verdict = not rule.negated
        return verdict


def _parse_line(line: str) -> _Rule | None:
    pattern = line.rstrip()
    if not pattern or pattern.startswith("#"):
        return None
    negated = pattern.startswith("!")
    pattern = pattern.removeprefix("!").removeprefix("\\")
    folders_only = pattern.endswith("/")
    pattern = pattern.rstrip("/")
    anchored = "/" in pattern
    prefix = "" if anchored else "(?:.*/)?"
    return _Rule(re.compile(prefix + _expression(pattern.lstrip("/"))), negated, folders_only)


_TOKEN = re.compile(r"/\*\*/|^\*\*/|/\*\*$|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_TRANSLATIONS = {"/**/": "/(?:.*/)?", "**/": "(?:.*/)?", "/**": "/.*", "*": "[^/]*", "?": "[^/]"}


def _expression(pattern: str) -> str:
    return "".join(_translate(token) for token in _TOKEN.findall(pattern))


def _translate(token: str) -> str:
    if token in _TRANSLATIONS:
        return _TRANSLATIONS[token]
    if len(token) > 1:
        return token.replace("[!", "[^", 1).replace("\\", r"\\")
    return re.escape(token)
