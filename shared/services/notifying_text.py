"""A notice in words that any channel can show: plain text without control characters, of bounded length."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Final

from shared.domain.instants import format_instant
from shared.domain.pipeline import Evidence, Plain

MAX_LINES: Final = 60
"""Lines of evidence in one notice; the page has all of it."""

MAX_VALUE: Final = 200
"""Characters of one value."""


def one_line(text: str) -> str:
    r"""Text without anything that could end a line, hide, or turn the reading direction: spaces in their place.

    >>> one_line("amount\r\nBcc: a@b")
    'amount  Bcc: a@b'
    """
    return "".join(" " if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else char for char in text)


def shortened(text: str, length: int) -> str:
    """The text, or its beginning and an ellipsis.

    >>> shortened("abcdef", 5)
    'ab...'
    """
    return text if len(text) <= length else text[: length - 3] + "..."


def when(time_us: int) -> str:
    """An instant for people, to the second.

    >>> when(1522540800000001)
    '2018-04-01 00:00:00 UTC'
    """
    return format_instant(time_us)[:19].replace("T", " ") + " UTC"


def evidence_lines(evidence: Evidence) -> list[str]:
    """The numbers, a line each: `name: value`, what is inside something by its path.

    >>> evidence_lines({"psi": 0.312345678, "window": {"rows": 120}, "features": ["amount", "hour"]})
    ['psi: 0.312346', 'window.rows: 120', 'features: amount, hour']
    """
    lines = [
        f"{shortened(one_line(name), MAX_VALUE)}: {shortened(one_line(value), MAX_VALUE)}"
        for name, value in _flat("", evidence)
    ]
    if len(lines) > MAX_LINES:
        lines[MAX_LINES - 1 :] = [f"and {len(lines) - MAX_LINES + 1} more"]
    return lines


def _flat(path: str, values: Mapping[str, Plain]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(f"{path}{name}.", value)
        elif isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value):
            yield f"{path}{name}", ", ".join(map(_worded, value))
        else:
            yield f"{path}{name}", _worded(value)


def _worded(value: Plain) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value)
