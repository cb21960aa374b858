"""An app's functions, parsed from the worker's metadata; what this host does not support is refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from twin.host.errors import BrokenApp
from twin.host.hostjson import HostJson
from twin.host.routing import BadTemplate, parse_route
from twin.host.settings import MissingSetting, is_true, resolve
from twin.host.timers.schedule import Schedule, parse_schedule

type Level = Literal["anonymous", "function", "admin"]

DEFAULT_STORAGE = "AzureWebJobsStorage"


@dataclass(frozen=True, slots=True)
class HttpTrigger:
    """A route; `methods` None means every method."""

    name: str
    template: str
    methods: tuple[str, ...] | None
    level: Level


@dataclass(frozen=True, slots=True)
class TimerTrigger:
    """A schedule. `use_monitor` keeps it in storage and makes up for a missed occurrence."""

    name: str
    schedule: Schedule
    run_on_startup: bool
    use_monitor: bool


@dataclass(frozen=True, slots=True)
class HubTrigger:
    """A consumer group of an event hub. `many` hands over batches, otherwise one event per call."""

    name: str
    hub: str
    connection: str
    group: str
    many: bool
    data_type: Literal["binary", "string"]


type Trigger = HttpTrigger | TimerTrigger | HubTrigger


@dataclass(frozen=True, slots=True)
class HubOutput:
    """Sends to an event hub."""

    name: str
    hub: str
    connection: str


@dataclass(frozen=True, slots=True)
class QueueOutput:
    """Puts messages on a storage queue."""

    name: str
    queue: str
    connection: str


@dataclass(frozen=True, slots=True)
class BlobOutput:
    """Writes a blob; the path may hold `{rand-guid}`, `{DateTime}` and names from the trigger's data."""

    name: str
    path: str
    connection: str


type Output = HubOutput | QueueOutput | BlobOutput


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A function's retry policy; delays in seconds, `maximum` -1 retries for ever."""

    maximum: int
    strategy: Literal["fixed_delay", "exponential_backoff"]
    minimum_s: float
    maximum_s: float


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the app."""

    name: str
    function_id: str
    trigger: Trigger
    outputs: tuple[Output, ...]
    retry: RetryPolicy | None
    raw: tuple[Mapping[str, Any], ...]


class _Refused(ValueError):
    """A binding that this host does not support."""


def _text(binding: Mapping[str, Any], name: str, settings: Mapping[str, str]) -> str:
    value = binding.get(name)
    if not isinstance(value, str) or not value:
        raise _Refused(f"binding {binding.get('name')!r}: {name} is required")
    return resolve(value, settings)


def _connection(binding: Mapping[str, Any], settings: Mapping[str, str], default: str | None = None) -> str:
    """The connection's name; it must exist as a setting or as a section `<name>__...`."""
    name = binding.get("connection") or default
    if not isinstance(name, str):
        raise _Refused(f"binding {binding.get('name')!r}: connection is required")
    name = resolve(name, settings)
    if not settings.get(name) and not any(key.startswith(f"{name}__") for key in settings):
        raise _Refused(
            f"binding {binding.get('name')!r}: there is no app setting {name!r} (connection string) nor {name}__..."
        )
    return name


def _http_trigger(function: str, binding: Mapping[str, Any], settings: Mapping[str, str]) -> HttpTrigger:
    template = resolve(str(binding.get("route") or function), settings)
    level = str(binding.get("authLevel") or "function").lower()
    if level not in {"anonymous", "function", "admin"}:
        raise _Refused(f"authLevel {level!r} is not supported")
    methods = binding.get("methods")
    wanted = None if not methods else tuple(str(method).upper() for method in methods)
    return HttpTrigger(str(binding["name"]), template, wanted, level)  # type: ignore[arg-type]  # checked above


def _timer_trigger(binding: Mapping[str, Any], settings: Mapping[str, str]) -> TimerTrigger:
    try:
        schedule = parse_schedule(_text(binding, "schedule", settings))
    except ValueError as problem:
        raise _Refused(f"schedule: {problem}") from problem
    monitor = binding.get("useMonitor")
    return TimerTrigger(
        name=str(binding["name"]),
        schedule=schedule,
        run_on_startup=bool(binding.get("runOnStartup")),
        # A schedule shorter than a minute is never monitored, whatever the binding says.
        use_monitor=(True if monitor is None else bool(monitor)) and not schedule.is_below_a_minute,
    )


def _hub_trigger(binding: Mapping[str, Any], settings: Mapping[str, str]) -> HubTrigger:
    data_type = str(binding.get("dataType") or "binary").lower()
    if data_type == "undefined":
        data_type = "binary"
    if data_type not in {"binary", "string"}:
        raise _Refused(f"dataType {data_type!r} is not supported for Event Hubs")
    cardinality = str(binding.get("cardinality") or "one").lower()
    if cardinality not in {"one", "many"}:
        raise _Refused(f"cardinality {cardinality!r} is neither one nor many")
    return HubTrigger(
        name=str(binding["name"]),
        hub=_text(binding, "eventHubName", settings),
        connection=_connection(binding, settings),
        group=resolve(str(binding.get("consumerGroup") or "$Default"), settings),
        many=cardinality == "many",
        data_type="string" if data_type == "string" else "binary",
    )


def _output(binding: Mapping[str, Any], settings: Mapping[str, str]) -> Output:
    name = str(binding["name"])
    match binding["type"]:
        case "eventHub":
            return HubOutput(name, _text(binding, "eventHubName", settings), _connection(binding, settings))
        case "queue":
            queue = _text(binding, "queueName", settings)
            return QueueOutput(name, queue, _connection(binding, settings, DEFAULT_STORAGE))
        case "blob":
            path = _text(binding, "path", settings)
            if "/" not in path:
                raise _Refused(f"binding {name!r}: path {path!r} must be container/blob")
            return BlobOutput(name, path, _connection(binding, settings, DEFAULT_STORAGE))
        case other:
            raise _Refused(f"binding {name!r} of type {other!r} (direction OUT) is not supported by this host")


def _retry(found: Mapping[str, Any] | None, trigger: Trigger) -> RetryPolicy | None:
    if found is None:
        return None
    if isinstance(trigger, HttpTrigger):
        raise _Refused("retry policies are not supported for HTTP triggers")
    maximum = found["max_retry_count"]
    if maximum < -1:
        raise _Refused(f"max_retry_count must be -1 or more, not {maximum}")
    if found["strategy"] == "fixed_delay":
        return RetryPolicy(maximum, "fixed_delay", found["delay_interval"], found["delay_interval"])
    if found["strategy"] == "exponential_backoff":
        low, high = found.get("minimum_interval", 0.0), found.get("maximum_interval", 2147483647.0)
        if low > high:
            raise _Refused("minimum_interval must not be over maximum_interval")
        return RetryPolicy(maximum, "exponential_backoff", low, high)
    raise _Refused(f"retry strategy {found['strategy']!r} is not supported")


def _one_trigger(function: str, bindings: Sequence[Mapping[str, Any]], settings: Mapping[str, str]) -> Trigger:
    incoming = [binding for binding in bindings if str(binding.get("direction")).upper() != "OUT"]
    triggers: list[Trigger] = []
    for binding in incoming:
        match binding["type"]:
            case "httpTrigger":
                triggers.append(_http_trigger(function, binding, settings))
            case "timerTrigger":
                triggers.append(_timer_trigger(binding, settings))
            case "eventHubTrigger":
                triggers.append(_hub_trigger(binding, settings))
            case other:
                raise _Refused(
                    f"binding {binding.get('name')!r} of type {other!r} (direction {binding.get('direction')}) "
                    "is not supported by this host"
                )
    if len(triggers) != 1:
        raise _Refused(f"must have exactly one trigger, not {len(triggers)}")
    return triggers[0]


def _parse(found: Mapping[str, Any], settings: Mapping[str, str]) -> Function:
    bindings = found["bindings"]
    trigger = _one_trigger(found["name"], bindings, settings)
    outputs = tuple(
        _output(binding, settings)
        for binding in bindings
        if str(binding.get("direction")).upper() == "OUT" and binding["type"] != "http"
    )
    return Function(
        name=found["name"],
        function_id=found["function_id"],
        trigger=trigger,
        outputs=outputs,
        retry=_retry(found["retry"], trigger),
        raw=tuple(bindings),
    )


def parse_functions(
    found: Sequence[Mapping[str, Any]], settings: Mapping[str, str], hostjson: HostJson
) -> list[Function]:
    """The app's functions, without those switched off by `AzureWebJobs.<name>.Disabled`.

    Raises:
        BrokenApp: naming each function and what of it this host cannot run.
    """
    problems: list[str] = []
    functions: list[Function] = []
    for item in found:
        name = item["name"]
        if is_true(settings, f"AzureWebJobs.{name}.Disabled"):
            continue
        try:
            function = _parse(item, settings)
            if isinstance(function.trigger, HttpTrigger):
                parse_route(name, function.trigger.template, function.trigger.methods, hostjson.http.route_prefix)
        except (_Refused, MissingSetting, BadTemplate) as problem:
            problems.append(f"function {name!r}: {problem}")
            continue
        functions.append(function)
        if not hostjson.has_bundle and (isinstance(function.trigger, HubTrigger) or function.outputs):
            problems.append(f"function {name!r}: its bindings need an extensionBundle in host.json")
    if problems:
        raise BrokenApp(problems)
    return functions
