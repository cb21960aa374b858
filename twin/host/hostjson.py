"""host.json, validated: what this host honours, what it knows and does not need, what it refuses.

Source of names, defaults and ranges: learn.microsoft.com, "host.json reference for Azure Functions 2.x and later" and
the HTTP and Event Hubs binding pages.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from twin.host.errors import BrokenApp
from twin.host.timespan import parse_timespan

log = logging.getLogger(__name__)

BUNDLE_ID = "Microsoft.Azure.Functions.ExtensionBundle"
_RANGE = re.compile(r"\s*([\[(])\s*([\d.*]+)\s*,\s*([\d.*]*)\s*([\])])\s*")

# Sections that say nothing to a host on one machine: telemetry, scaling, hosts for other languages.
NOT_NEEDED = frozenset(
    {
        "aggregator",
        "applicationInsights",
        "concurrency",
        "functions",
        "healthMonitor",
        "logging",
        "managedDependency",
        "queues",
        "telemetryMode",
        "tracing",
        "watchDirectories",
        "watchFiles",
        "$schema",
    }
)
REFUSED = {
    "customHandler": "custom handlers are not supported by this host",
    "durableTask": "Durable Functions are not supported by this host",
    "retry": "app-level retry was removed from the cloud; use @app.retry on each function",
}
TOP = frozenset({"version", "extensionBundle", "functionTimeout", "extensions", "singleton"})
HTTP = frozenset(
    {
        "routePrefix",
        "maxOutstandingRequests",
        "maxConcurrentRequests",
        "dynamicThrottlesEnabled",
        "hsts",
        "customHeaders",
    }
)
HUBS = frozenset(
    {
        "maxEventBatchSize",
        "minEventBatchSize",
        "maxWaitTime",
        "batchCheckpointFrequency",
        "prefetchCount",
        "transportType",
        "initialOffsetOptions",
        "targetUnprocessedEventThreshold",
        "clientRetryOptions",
        "webProxy",
        "loadBalancingUpdateInterval",
        "partitionOwnershipExpirationInterval",
        "trackLastEnqueuedEventProperties",
        "enableCheckpointing",
    }
)

RETRY = frozenset({"mode", "tryTimeout", "delay", "maximumDelay", "maximumRetries"})


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """`extensions.http`; None is unbounded."""

    route_prefix: str = "api"
    max_outstanding: int | None = None
    max_concurrent: int | None = None
    custom_headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ClientRetry:
    """`extensions.eventHubs.clientRetryOptions`: how the SDK repeats what the broker did not answer; seconds."""

    mode: Literal["exponential", "fixed"] = "exponential"
    delay_s: float = 0.8
    maximum_delay_s: float = 60.0
    maximum_retries: int = 3


@dataclass(frozen=True, slots=True)
class HubOptions:
    """`extensions.eventHubs`; intervals in seconds.

    Attributes:
        start: Where a group without a checkpoint begins.
        start_time_utc: ISO time for start "enqueued".
    """

    max_batch: int = 100
    min_batch: int = 1
    max_wait_s: float = 60.0
    checkpoint_every: int = 1
    prefetch: int = 300
    start: Literal["fromStart", "fromEnd", "fromEnqueuedTime"] = "fromStart"
    start_time_utc: str | None = None
    client_retry: ClientRetry = field(default_factory=ClientRetry)
    balance_interval_s: float = 2.0
    ownership_expiry_s: float = 10.0


@dataclass(frozen=True, slots=True)
class HostJson:
    """The whole file.

    Attributes:
        timeout_s: functionTimeout; None is unbounded.
        has_bundle: Whether an extension bundle is named; non-HTTP bindings need one.
        listener_lock_s: Lease of a timer's singleton lock, 15 to 60 seconds.
    """

    http: HttpOptions = field(default_factory=HttpOptions)
    hubs: HubOptions = field(default_factory=HubOptions)
    timeout_s: float | None = 1800.0
    has_bundle: bool = False
    listener_lock_s: float = 15.0


class _Section:
    """Reads one object of the file, collecting problems under its path."""

    def __init__(self, value: object, path: str, problems: list[str]) -> None:
        self._path = path
        self.problems = problems
        self.values: Mapping[str, Any] = {}
        if isinstance(value, dict):
            self.values = value
        elif value is not None:
            self.problem("", f"must be an object, not {value!r}")

    def problem(self, name: str, rule: str) -> None:
        self.problems.append(f"host.json {self._path}{'.' if self._path and name else ''}{name}: {rule}")

    def refuse_unknown(self, known: frozenset[str]) -> None:
        for name in sorted(set(self.values) - known):
            self.problem(name, "is not a setting that this host knows")

    def section(self, name: str) -> _Section:
        path = f"{self._path}.{name}" if self._path else name
        return _Section(self.values.get(name), path, self.problems)

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.values.get(name, default)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.problem(name, f"must be a whole number from {low} to {high}, not {value!r}")
        return default

    def bound(self, name: str) -> int | None:
        """A positive number, or -1 for no bound."""
        value = self.integer(name, -1, -1, 2**31 - 1)
        if value == 0:
            self.problem(name, "must be -1 or positive, not 0")
        return value if value > 0 else None

    def span(self, name: str, default: float, low: float, high: float) -> float:
        if name not in self.values:
            return default
        value = self.values[name]
        try:
            seconds = parse_timespan(value) if isinstance(value, str) else float("nan")
        except ValueError as problem:
            self.problem(name, str(problem))
            return default
        if low <= seconds <= high:
            return seconds
        self.problem(name, f"must be a time span from {low:g} to {high:g} seconds, not {value!r}")
        return default

    def text(self, name: str, default: str, accept: Callable[[str], bool], rule: str) -> str:
        value = self.values.get(name, default)
        if isinstance(value, str) and accept(value):
            return value
        self.problem(name, f"{rule}, not {value!r}")
        return default


def _bundle_covers_v4(text: str) -> bool:
    """Whether a range such as `[4.*, 5.0.0)` lets the cloud pick any bundle of major version 4."""
    match = _RANGE.fullmatch(text)
    if match is None:
        return False
    low = [0 if part == "*" else int(part) for part in match[2].split(".") if part]
    high = [0 if part == "*" else int(part) for part in match[3].split(".") if part]
    return low[0] == 4 and not any(low[1:]) and high[:1] == [5] and not any(high[1:]) and match[4] == ")"


def _http(section: _Section) -> HttpOptions:
    section.refuse_unknown(HTTP)
    prefix = section.text("routePrefix", "api", lambda text: "{" not in text, "must be plain text")
    headers = section.section("customHeaders").values
    for name, value in headers.items():
        if not isinstance(value, str) or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            section.problem(f"customHeaders.{name}", "must be a header with a string value")
    if section.values.get("dynamicThrottlesEnabled"):
        log.warning("host.json extensions.http.dynamicThrottlesEnabled is ignored: one machine has no instance limits")
    return HttpOptions(
        route_prefix=prefix,
        max_outstanding=section.bound("maxOutstandingRequests"),
        max_concurrent=section.bound("maxConcurrentRequests"),
        custom_headers=tuple((name, str(value)) for name, value in headers.items()),
    )


def _is_moment(value: object) -> bool:
    try:
        datetime.fromisoformat(str(value))
    except ValueError:
        return False
    return True


def _hubs(section: _Section) -> HubOptions:
    section.refuse_unknown(HUBS)
    offsets = section.section("initialOffsetOptions")
    kinds = {"fromstart": "fromStart", "fromend": "fromEnd", "fromenqueuedtime": "fromEnqueuedTime"}
    kind = offsets.text(
        "type", "fromStart", lambda text: text.lower() in kinds, f"must be one of {list(kinds.values())}"
    )
    start = kinds[kind.lower()]
    moment = offsets.values.get("enqueuedTimeUtc")
    if start == "fromEnqueuedTime" and not isinstance(moment, str):
        offsets.problem("enqueuedTimeUtc", "is required with type fromEnqueuedTime")
    elif moment is not None and not _is_moment(moment):
        offsets.problem("enqueuedTimeUtc", f"must be a time such as 2026-01-01T00:00:00Z, not {moment!r}")
    transport = section.values.get("transportType", "amqpTcp")
    if transport != "amqpTcp":
        section.problem("transportType", f"only amqpTcp is supported by this host, not {transport!r}")
    if "webProxy" in section.values:
        section.problem("webProxy", "is not supported by this host")
    if section.values.get("enableCheckpointing") is False:
        section.problem("enableCheckpointing", "switching checkpoints off is not supported by this host")
    retry = section.section("clientRetryOptions")
    retry.refuse_unknown(RETRY)
    mode = retry.text("mode", "exponential", lambda text: text.lower() in {"exponential", "fixed"}, "unknown mode")
    retry.span("tryTimeout", 60.0, 0.001, 86400)
    options = HubOptions(
        client_retry=ClientRetry(
            mode="fixed" if mode.lower() == "fixed" else "exponential",
            delay_s=retry.span("delay", 0.8, 0.001, 300),
            maximum_delay_s=retry.span("maximumDelay", 60.0, 0, 86400),
            maximum_retries=retry.integer("maximumRetries", 3, 0, 100),
        ),
        max_batch=section.integer("maxEventBatchSize", 100, 1, 2**31 - 1),
        min_batch=section.integer("minEventBatchSize", 1, 1, 2**31 - 1),
        max_wait_s=section.span("maxWaitTime", 60.0, 0, 600),
        checkpoint_every=section.integer("batchCheckpointFrequency", 1, 1, 2**31 - 1),
        prefetch=section.integer("prefetchCount", 300, 1, 2**31 - 1),
        start=start,  # type: ignore[arg-type]  # one of the values of `kinds`
        start_time_utc=moment if isinstance(moment, str) else None,
        balance_interval_s=section.span("loadBalancingUpdateInterval", 2.0, 0.1, 600),
        ownership_expiry_s=section.span("partitionOwnershipExpirationInterval", 10.0, 1, 3600),
    )
    if options.min_batch > options.max_batch:
        section.problem("minEventBatchSize", f"must not be over maxEventBatchSize ({options.max_batch})")
    return options


def _timeout(section: _Section) -> float | None:
    value = section.values.get("functionTimeout", "00:30:00")
    if value == "-1":
        return None
    return section.span("functionTimeout", 1800.0, 0.001, 10 * 365 * 86400)


def _has_bundle(section: _Section) -> bool:
    if not section.values:
        return False
    name = section.values.get("id")
    if name != BUNDLE_ID:
        section.problem("id", f"must be {BUNDLE_ID}, not {name!r}")
    version = section.values.get("version")
    if not isinstance(version, str) or not _bundle_covers_v4(version):
        section.problem("version", f"must be [4.0.0, 5.0.0) or [4.*, 5.0.0), not {version!r}")
    return True


def _extensions(section: _Section) -> None:
    known = {"http", "eventHubs", "queues", "blobs"}
    for name in sorted(set(section.values) - known):
        if name == "durableTask":
            section.problem(name, REFUSED[name])
        else:
            log.warning("host.json extensions.%s is ignored: this host has no such extension", name)


def parse_hostjson(document: object) -> HostJson:
    """A decoded host.json.

    Raises:
        BrokenApp: naming every setting and rule that is broken, and every section that this host refuses.
    """
    problems: list[str] = []
    root = _Section(document, "", problems)
    if root.values.get("version") != "2.0":
        root.problem("version", f'must be "2.0", not {root.values.get("version")!r}')
    for name in root.values:
        if name in REFUSED:
            root.problem(name, REFUSED[name])
        elif name not in TOP and name not in NOT_NEEDED:
            log.warning("host.json %s is ignored: not a section of host.json", name)
    extensions = root.section("extensions")
    _extensions(extensions)
    parsed = HostJson(
        http=_http(extensions.section("http")),
        hubs=_hubs(extensions.section("eventHubs")),
        timeout_s=_timeout(root),
        has_bundle=_has_bundle(root.section("extensionBundle")),
        listener_lock_s=root.section("singleton").span("listenerLockPeriod", 15.0, 15, 60),
    )
    if problems:
        raise BrokenApp(problems)
    return parsed


def load_hostjson(app_dir: Path) -> HostJson:
    """`host.json` of an app folder. Raises BrokenApp for a file that is missing, no JSON or against the rules."""
    path = app_dir / "host.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as problem:
        raise BrokenApp([f"host.json: cannot be read: {problem.strerror}"]) from problem
    except ValueError as problem:
        raise BrokenApp([f"host.json: is not JSON: {problem}"]) from problem
    if not isinstance(document, dict):
        raise BrokenApp(["host.json: must be a JSON object"])
    return parse_hostjson(document)
