"""Log lines of the host and its workers: readable text or one JSON object per line, on standard output.

Both carry the invocation id of the call that logs: the worker installs a source for it (`set_invocation_source`).
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Literal

type LogFormat = Literal["text", "json"]

_invocation: Callable[[], str | None] = lambda: None  # noqa: E731  (replaced by the worker)

# Fields that every LogRecord has; whatever else is on a record was passed as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_invocation_source(source: Callable[[], str | None]) -> None:
    """Say where the id of the current invocation is read from."""
    global _invocation  # noqa: PLW0603  (one per process, like logging itself)
    _invocation = source


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _moment(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


class TextLines(logging.Formatter):
    """`moment level [process] logger: message key=value invocation=...`."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it if there is one."""
        line = f"{_moment(record)} {record.levelname} [{self._process}] {record.name}: {record.getMessage()}"
        extras = "".join(f" {name}={value}" for name, value in _extras(record).items())
        invocation = _invocation()
        if invocation:
            extras += f" invocation={invocation}"
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return line + extras + trace


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The object, without line breaks."""
        entry: dict[str, object] = {
            "at": _moment(record),
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
            **_extras(record),
        }
        invocation = _invocation()
        if invocation:
            entry["invocation"] = invocation
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def install(process: str, level: str, style: LogFormat) -> None:
    """Send the root logger to standard output and quieten libraries that speak per request."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines(process) if style == "json" else TextLines(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("azure.core", "azure.eventhub", "azure.identity", "azure.functions", "asyncio", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
