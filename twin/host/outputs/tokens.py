"""`{name}` in a binding's path: generated values and the trigger's data."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

_TOKEN = re.compile(r"\{([^{}]+)\}")


def fill(path: str, data: Mapping[str, object]) -> str:
    """`{rand-guid}`, `{DateTime}` and names from `data` (without case) replaced.

    Raises:
        ValueError: for a name that the trigger's data does not hold.
    """
    known = {name.lower(): value for name, value in data.items()}

    def value(match: re.Match[str]) -> str:
        name = match[1].lower()
        if name == "rand-guid":
            return str(uuid.uuid4())
        if name == "datetime":
            return datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
        if name not in known:
            raise ValueError(f"the trigger's data has no value for {{{match[1]}}} in {path!r}")
        return str(known[name])

    return _TOKEN.sub(value, path)
