"""Access keys: host keys, the master key and function keys, as the cloud checks them.

A request names its key in `x-functions-key` or in the query as `code`. An anonymous function needs none; a function
level is opened by the function's own keys, any host key or the master key; admin level only by the master key.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from twin.host.errors import InvalidConfig

MASTER = "_master"
DEFAULT = "default"


def _same(given: str, known: str) -> bool:
    return hmac.compare_digest(given.encode(), known.encode())


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys of one app.

    Attributes:
        master: Opens everything.
        host: Open every function.
        functions: Per function name, the keys that open it.
    """

    master: str
    host: Mapping[str, str]
    functions: Mapping[str, Mapping[str, str]]

    def allows(self, level: str, function: str, headers: Mapping[str, str], query: Mapping[str, str]) -> bool:
        """Whether a request with these headers (lower-case names) and query may pass."""
        if level == "anonymous":
            return True
        given = headers.get("x-functions-key") or query.get("code")
        if not given:
            return False
        if _same(given, self.master):
            return True
        if level == "admin":
            return False
        candidates = [*self.host.values(), *self.functions.get(function, {}).values()]
        return any([_same(given, known) for known in candidates])  # noqa: C419  (no early exit: constant time)

    def as_json(self) -> dict[str, object]:
        """The form of the keys file."""
        return {
            "masterKey": self.master,
            "hostKeys": dict(self.host),
            "functionKeys": {name: dict(keys) for name, keys in self.functions.items()},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> Keyring:
        """The inverse of `as_json`. Raises KeyError, TypeError or AttributeError for anything else."""
        host, functions = document["hostKeys"], document["functionKeys"]
        if not isinstance(host, dict) or not isinstance(functions, dict):
            raise TypeError("hostKeys and functionKeys are objects")
        return cls(
            str(document["masterKey"]),
            {str(name): str(key) for name, key in host.items()},
            {str(name): {str(k): str(v) for k, v in keys.items()} for name, keys in functions.items()},
        )


def _new_key() -> str:
    return secrets.token_urlsafe(40)


def load_or_create(path: Path, functions: Iterable[str]) -> Keyring:
    """The keys in `path`, made (mode 0600) or completed for functions that have none yet.

    Raises:
        InvalidConfig: the file is not a keys file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several instances of an app share the file and may start at once.
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _complete(path, functions)


def _complete(path: Path, functions: Iterable[str]) -> Keyring:
    if path.exists():
        try:
            known = Keyring.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise InvalidConfig([f"keys_file: {path} is not a keys file ({problem!r})"]) from problem
    else:
        known = Keyring(_new_key(), {DEFAULT: _new_key()}, {})
    keys = {name: dict(known.functions.get(name) or {DEFAULT: _new_key()}) for name in functions}
    complete = Keyring(known.master, known.host, {**known.functions, **keys})
    if complete != known or not path.exists():
        _write_private(path, json.dumps(complete.as_json(), indent=2) + "\n")
    return complete


def _write_private(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
