"""Log lines with fields: a constant message, then one JSON object.

The Functions host forwards the formatted message of a record and drops its extra attributes, so the fields travel in
the message; a query can parse them, and a person can read them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_context: ContextVar[Mapping[str, object]] = ContextVar("tollgate_log_context", default=MappingProxyType({}))

_ENCODE = json.JSONEncoder(default=str, separators=(",", ":")).encode

NOISY_LOGGERS = ("azure.core.pipeline.policies.http_logging_policy", "azure.identity", "azure.storage", "uamqp")
"""SDK loggers that write a line or more per request at INFO; they are held at WARNING."""


def configure(level: str) -> None:
    """Set the level of Tollgate's loggers and quieten the SDKs; the host owns the handlers."""
    logging.getLogger("shared").setLevel(level)
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def log_context(**fields: object) -> Iterator[None]:
    """Add fields to every log line written inside, in this task or thread."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def with_fields(message: str, **fields: object) -> str:
    """The text of a log line: the constant message, then context and fields as JSON."""
    merged = {**_context.get(), **fields}
    return f"{message} {_ENCODE(merged)}" if merged else message
