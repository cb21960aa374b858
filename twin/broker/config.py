"""The broker's settings: one JSON file, checked as a whole so that every problem is named at once."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twin.broker.errors import BrokerError
from twin.broker.hubs import DEFAULT_GROUP, HubSettings
from twin.broker.links import MAX_MESSAGE_SIZE
from twin.broker.partition_log import LogLimits
from twin.broker.sessions import Timeouts
from twin.broker.tokens import JwtRules

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,254}[A-Za-z0-9])?")
_GROUP: Final = re.compile(r"\$Default|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,48}[A-Za-z0-9])?", re.IGNORECASE)
_MAX_PARTITIONS: Final = 1024
_MIN_SEGMENT_BYTES: Final = 4096


class ConfigInvalid(BrokerError):
    """The settings cannot be used; `problems` name each field and the rule it breaks."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """The listener that speaks TLS: its port (0: any free one) and PEM files."""

    port: int
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the broker can be told."""

    host: str
    port: int
    data_dir: Path
    hubs: tuple[HubSettings, ...]
    keys: Mapping[str, str]
    limits: LogLimits
    tls: TlsSettings | None
    jwt_rules: JwtRules | None
    max_connections: int
    timeouts: Timeouts


class _Reader:
    """Reads fields of one JSON object and collects what is wrong with them."""

    def __init__(self, document: object, path: str, problems: list[str]) -> None:
        self._path = path
        self.problems = problems
        self._fields: dict[str, object] = document if isinstance(document, dict) else {}
        self._seen: set[str] = set()
        if not isinstance(document, dict):
            problems.append(f"{path or 'the file'}: must be a JSON object")

    def name(self, field: str) -> str:
        return f"{self._path}.{field}" if self._path else field

    def problem(self, field: str, rule: str) -> None:
        self.problems.append(f"{self.name(field)}: {rule}")

    def take(self, field: str, default: object = None) -> object:
        self._seen.add(field)
        return self._fields.get(field, default)

    def text(self, field: str, default: str | None = None) -> str:
        value = self.take(field, default)
        if isinstance(value, str) and value:
            return value
        self.problem(field, "must be text, not empty")
        return ""

    def number(self, field: str, low: int, high: int, default: int | None = None) -> int:
        value = self.take(field, default)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.problem(field, f"must be a whole number from {low} to {high}")
        return low

    def items(self, field: str, default: list[object] | None = None) -> list[object]:
        value = self.take(field, default)
        if isinstance(value, list):
            return value
        self.problem(field, "must be a list")
        return []

    def file(self, field: str) -> Path:
        path = Path(self.text(field))
        if path.name and not path.is_file():
            self.problem(field, f"there is no file {path}")
        return path

    def child(self, field: str) -> _Reader | None:
        value = self.take(field)
        return None if value is None else _Reader(value, self.name(field), self.problems)

    def refuse_others(self) -> None:
        for field in sorted(self._fields.keys() - self._seen):
            self.problem(field, "is not a known setting")


def load(path: Path) -> Settings:
    """Read and check a settings file; relative paths in it are relative to the working directory.

    Raises:
        ConfigInvalid: the file cannot be read, or anything in it breaks a rule.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigInvalid([f"the file {path}: {error.strerror or error}"]) from error
    except ValueError as error:
        raise ConfigInvalid([f"the file {path}: is not JSON ({error})"]) from error
    return parse(document)


def parse(document: object) -> Settings:
    """Check decoded settings.

    Raises:
        ConfigInvalid: anything breaks a rule.
    """
    reader = _Reader(document, "", [])
    settings = Settings(
        host=_host(reader),
        port=reader.number("port", 0, 65535),
        data_dir=Path(reader.text("data_dir")),
        hubs=_hubs(reader),
        keys=_keys(reader),
        limits=_limits(reader),
        tls=_tls(reader),
        jwt_rules=_jwt_rules(reader),
        max_connections=reader.number("max_connections", 1, 100_000, 500),
        timeouts=Timeouts(_duration(reader, "handshake_timeout_s", 20), _duration(reader, "idle_timeout_s", 240)),
    )
    if not settings.keys and settings.jwt_rules is None:
        reader.problem("keys", "must not be empty unless tokens are configured: nobody could connect")
    if settings.tls is not None and settings.tls.port == settings.port != 0:
        reader.problem("tls.port", "must differ from port")
    reader.refuse_others()
    if reader.problems:
        raise ConfigInvalid(reader.problems)
    return settings


def _host(reader: _Reader) -> str:
    host = reader.text("host", "127.0.0.1")
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        reader.problem("host", "must be a loopback address: the broker is for one machine and has no other protection")
    # One listener, one port: `localhost` may also stand for ::1, where port 0 would be another one.
    return "127.0.0.1" if host == "localhost" else host


def _duration(reader: _Reader, field: str, default: float) -> float:
    value = reader.take(field, default)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
        return value
    reader.problem(field, "must be a number above 0")
    return default


def _named[T](reader: _Reader, field: str, items: list[object], read: Callable[[_Reader], tuple[str, T]]) -> list[T]:
    """Read a list of objects whose names must differ without case."""
    values: list[T] = []
    seen: set[str] = set()
    for index, item in enumerate(items):
        child = _Reader(item, f"{field}[{index}]", reader.problems)
        name, value = read(child)
        child.refuse_others()
        if name.lower() in seen:
            child.problem("name", f"'{name}' is there twice")
        seen.add(name.lower())
        values.append(value)
    return values


def _hubs(reader: _Reader) -> tuple[HubSettings, ...]:
    hubs = _named(reader, "hubs", reader.items("hubs"), _hub)
    if not hubs:
        reader.problem("hubs", "must name at least one hub")
    return tuple(hubs)


def _hub(reader: _Reader) -> tuple[str, HubSettings]:
    name = reader.text("name")
    if name and not _NAME.fullmatch(name):
        reader.problem(
            "name", "must be 1 to 256 letters, digits, '.', '_' or '-', and begin and end with the former two"
        )
    groups = []
    for index, group in enumerate(reader.items("consumer_groups", [DEFAULT_GROUP])):
        if isinstance(group, str) and _GROUP.fullmatch(group):
            groups.append(group)
        else:
            reader.problem(
                f"consumer_groups[{index}]", "must be '$Default' or 1 to 50 letters, digits, '.', '_' or '-'"
            )
    return name, HubSettings(name, reader.number("partitions", 1, _MAX_PARTITIONS), tuple(groups))


def _keys(reader: _Reader) -> dict[str, str]:
    def read(child: _Reader) -> tuple[str, tuple[str, str]]:
        name = child.text("name")
        return name, (name, child.text("key"))

    return dict(_named(reader, "keys", reader.items("keys", []), read))


def _limits(reader: _Reader) -> LogLimits:
    hours = _duration(reader, "retention_hours", 24)
    segment_bytes = reader.number("segment_bytes", _MIN_SEGMENT_BYTES, 1 << 40, 64 * 1024 * 1024)
    retention_bytes: int | None = None
    if reader.take("retention_bytes") is not None:
        retention_bytes = reader.number("retention_bytes", segment_bytes, 1 << 50)
    tail_bytes = reader.number("tail_bytes", MAX_MESSAGE_SIZE, 1 << 40, 4 * MAX_MESSAGE_SIZE)
    fsync = reader.take("fsync", default=False)
    if fsync is not False and fsync != "group":
        reader.problem("fsync", 'must be false or "group"')
    return LogLimits(segment_bytes, max(1, int(hours * 3_600_000)), retention_bytes, tail_bytes, fsync == "group")


def _tls(reader: _Reader) -> TlsSettings | None:
    child = reader.child("tls")
    if child is None:
        return None
    settings = TlsSettings(child.number("port", 0, 65535), child.file("certificate"), child.file("key"))
    child.refuse_others()
    return settings


def _jwt_rules(reader: _Reader) -> JwtRules | None:
    child = reader.child("tokens")
    if child is None:
        return None
    audience = child.items("audience")
    if not audience or not all(isinstance(item, str) and item for item in audience):
        child.problem("audience", "must be a list of texts, not empty")
    key_file = child.file("public_key_file")
    public_key = key_file.read_bytes() if key_file.is_file() else b""
    if public_key and b"-----BEGIN PUBLIC KEY-----" not in public_key:
        child.problem("public_key_file", "must hold an RSA public key in PEM form")
    rules = JwtRules(child.text("issuer"), tuple(str(item) for item in audience), public_key)
    child.refuse_others()
    return rules
