"""host.json and the example settings: documented settings in documented ranges, and nothing else."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from twin.packaging.checks import check_settings_example
from twin.packaging.checks.host_json import check_host_json
from twin.packaging.checks.shapes import parse_time_span
from twin.packaging.source import ROOT

type Keys = tuple[str, ...]


def planted(document: dict[str, Any], path: Keys, value: object) -> dict[str, Any]:
    """A copy of the document with one value set, or removed when it is Ellipsis."""
    changed = copy.deepcopy(document)
    target = changed
    for key in path[:-1]:
        target = target.setdefault(key, {})
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return changed


@pytest.fixture
def host_json() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / "functions" / "ingest" / "host.json").read_text(encoding="utf-8"))
    return document


def found(document: object, tmp_path: Path) -> list[str]:
    path = tmp_path / "host.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return [problem.message for problem in check_host_json(path)]


HUBS = ("extensions", "eventHubs")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("version",), ..., "version is missing"),
        (("version",), "3.0", "version must be one of 2.0"),
        (("verison",), "2.0", "verison is not a documented setting"),
        (("functiontimeout",), "00:05:00", "functionTimeout is"),
        (("functionTimeout",), ..., "functionTimeout is missing"),
        (("functionTimeout",), "5 min", "functionTimeout must be a time span"),
        (("functionTimeout",), "24:00:00", "24 days"),
        (("functionTimeout",), "00:00:00", "must be at least"),
        (("functionTimeout",), "-1", "unbounded"),
        (("functionTimeout",), 300, "functionTimeout must be a time span"),
        (("extensionBundle",), ..., "extensionBundle needs id and version"),
        (("extensionBundle", "id"), "Microsoft.Azure.Functions.ExtensionBundle.Preview", "extensionBundle.id must be"),
        (("extensionBundle", "version"), "[3.3.0, 4.0.0)", "must be [4.0.0, 5.0.0)"),
        (("extensionBundle", "version"), "[4.33.0, 4.36.0)", "must be [4.0.0, 5.0.0)"),
        (("extensionBundle", "version"), "4.*", "must be [4.0.0, 5.0.0)"),
        (("retry",), {"strategy": "fixedDelay"}, "removed from host.json"),
        (("extensions", "eventHub"), {}, "extensions.eventHub is not a documented setting"),
        (("extensions", "http"), [], "extensions.http must be an object"),
        (("extensions", "http", "routePrefix"), None, "routePrefix must be a string"),
        (("extensions", "http", "maxConcurrentRequests"), "100", "must be an integer"),
        (("extensions", "http", "dynamicThrottlesEnabled"), "true", "must be true or false"),
        ((*HUBS, "maxBatchSize"), 100, "maxBatchSize is not a documented setting"),
        ((*HUBS, "maxEventBatchSize"), 0, "maxEventBatchSize must be at least 1"),
        ((*HUBS, "maxEventBatchSize"), True, "must be an integer"),
        ((*HUBS, "minEventBatchSize"), 100, "must be less than maxEventBatchSize"),
        ((*HUBS, "maxWaitTime"), "00:11:00", "maxWaitTime must be between"),
        ((*HUBS, "batchCheckpointFrequency"), 5, "batchCheckpointFrequency must be between 1 and 1"),
        ((*HUBS, "enableCheckpointing"), False, "enableCheckpointing must stay true"),
        ((*HUBS, "transportType"), "amqp", "must be one of amqpTcp, amqpWebSockets"),
        ((*HUBS, "webProxy"), "http://proxy", "needs transportType amqpWebSockets"),
        ((*HUBS, "initialOffsetOptions"), {"type": "fromEnqueuedTime"}, "enqueuedTimeUtc is needed"),
        ((*HUBS, "clientRetryOptions", "mode"), "Exponential", "must be one of exponential, fixed"),
        ((*HUBS, "clientRetryOptions", "delay"), "00:01:00", "is longer than maximumDelay"),
        ((*HUBS, "clientRetryOptions", "maximumRetries"), -1, "must be between 0 and 100"),
        (("logging", "logLevel", "default"), "Info", "default must be one of Trace"),
        (("logging", "loglevel"), {}, "logLevel is"),
        (("logging", "applicationInsights", "samplingSettings", "excludedTypes"), "Exceptions", "telemetry types"),
        (("logging", "applicationInsights", "samplingSettings", "isEnabled"), "false", "must be true or false"),
        (("logging", "applicationInsights", "samplingSettings", "maxSamplingPercentage"), 101, "between 0 and 100"),
        (("singleton", "lockPeriod"), "00:00:05", "lockPeriod must be between"),
        (("extensions", "queues", "batchSize"), 33, "between 1 and 32"),
    ],
)
def test_mistake_in_host_json(
    path: Keys, value: object, message: str, host_json: dict[str, Any], tmp_path: Path
) -> None:
    assert any(message in problem for problem in found(planted(host_json, path, value), tmp_path))


def test_real_host_json_is_clean(host_json: dict[str, Any], tmp_path: Path) -> None:
    assert found(host_json, tmp_path) == []


def test_documented_settings_pass(host_json: dict[str, Any], tmp_path: Path) -> None:
    for bundle in ("[4.*, 5.0.0)", "[4.0.0,5.0.0)"):
        document = planted(host_json, ("extensionBundle", "version"), bundle)
        assert found(document, tmp_path) == []
    document = planted(document, ("telemetryMode",), "OpenTelemetry")
    document = planted(document, (*HUBS, "minEventBatchSize"), 25)
    document = planted(document, ("concurrency", "dynamicConcurrencyEnabled"), value=True)
    document = planted(document, ("extensions", "http", "customHeaders"), {"X-Content-Type-Options": "nosniff"})
    assert found(document, tmp_path) == []


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_unreadable_host_json(text: str, tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text(text, encoding="utf-8")
    assert len(check_host_json(tmp_path / "host.json")) == 1
    assert len(check_host_json(tmp_path / "missing.json")) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:00:01", 1.0),
        ("1.00:00:00", 86400.0),
        ("00:00:00.8", 0.8),
        ("24:00:00", None),
        ("00:60:00", None),
        ("00:00", None),
        ("", None),
        (None, None),
    ],
)
def test_time_spans(text: object, seconds: float | None) -> None:
    span = parse_time_span(text)
    assert (None if span is None else span.total_seconds()) == seconds


NAMES = {"FUNCTIONS_WORKER_RUNTIME", "AzureWebJobsStorage", "EVENT_HUBS", "HUB"}
EXAMPLE: dict[str, Any] = {
    "IsEncrypted": False,
    "Values": {
        "FUNCTIONS_WORKER_RUNTIME": "python",
        "AzureWebJobsStorage": "UseDevelopmentStorage=true",
        "EVENT_HUBS__fullyQualifiedNamespace": "localhost",
        "HUB": "transactions",
    },
    "Host": {"LocalHttpPort": 7071},
}


def settings_problems(document: object, tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "local.settings.example.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return {problem.rule: problem.message for problem in check_settings_example(path, NAMES)}


def test_example_with_exactly_the_settings_passes(tmp_path: Path) -> None:
    assert settings_problems(EXAMPLE, tmp_path) == {}


@pytest.mark.parametrize(
    ("path", "value", "rule", "message"),
    [
        (("Values", "HUB"), ..., "settings-missing", "HUB is read by the apps"),
        (("Values", "EVENT_HUBS__fullyQualifiedNamespace"), ..., "settings-missing", "EVENT_HUBS is read"),
        (("Values", "HUBB"), "x", "settings-unknown", "HUBB is in Values"),
        (("Values", "OTHER__accountName"), "x", "settings-unknown", "OTHER__accountName"),
        (("Values", "HUB"), 5, "settings", "HUB must be a string"),
        (("Values", "HUB"), {"name": "x"}, "settings", "HUB must be a string"),
        (("Values",), [], "settings-missing", "AzureWebJobsStorage|HUB|RUNTIME"),
        (("Values", "FUNCTIONS_WORKER_RUNTIME"), "node", "settings", "must be python"),
        (("IsEncrypted",), True, "settings", "must be false"),
        (("Host", "LocalHttpPort"), "7071", "settings", "LocalHttpPort must be an integer"),
        (("Host", "Port"), 7071, "settings", "Host.Port is not a documented setting"),
        (("values",), {}, "settings", "values is not a documented setting; Values is"),
        (("Values", "HUB"), "AccountKey=" + "A" * 86 + "==", "secret", "looks like a storage account key"),
    ],
)
def test_mistake_in_the_example(path: Keys, value: object, rule: str, message: str, tmp_path: Path) -> None:
    problems = settings_problems(planted(EXAMPLE, path, value), tmp_path)
    assert any(part in problems.get(rule, "") for part in message.split("|"))


def test_unreadable_example(tmp_path: Path) -> None:
    assert [problem.rule for problem in check_settings_example(tmp_path / "missing.json", NAMES)] == ["settings"]
    assert "settings" in settings_problems([], tmp_path)
