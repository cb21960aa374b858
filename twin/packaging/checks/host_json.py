"""host.json: only documented settings, in documented ranges.

The table follows https://learn.microsoft.com/azure/azure-functions/functions-host-json and, for eventHubs (extension 5
and later), functions-bindings-event-hubs#hostjson-settings there. The host ignores what it does not know, so a misspelt
setting is silently the default: hence the strictness.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from twin.packaging.checks.problem import Problem
from twin.packaging.checks.shapes import (
    Shape,
    anything,
    boolean,
    integer,
    mapping,
    number,
    one_of,
    parse_time_span,
    text,
    texts,
    time_span,
    walk,
)

_BUNDLE = "Microsoft.Azure.Functions.ExtensionBundle"
# Bundles before 4 are out of support, and hosts were seen not to find any bundle for a narrow range like [4.33, 4.36).
_BUNDLE_RANGE = re.compile(r"\[\s*4(\.\*|(\.0){0,2})\s*,\s*5(\.0){0,2}\s*\)")
_LEVELS = ("Trace", "Debug", "Information", "Warning", "Error", "Critical", "None")
_TELEMETRY = re.compile(
    r"(Dependency|Event|Exception|PageView|Request|Trace)(;(Dependency|Event|Exception|PageView|Request|Trace))*"
)


def _function_timeout(value: object) -> str | None:
    if value == "-1":
        return "is unbounded: a call that hangs would be paid for without end; set a limit"
    return time_span(timedelta(seconds=1))(value)


def _bundle_range(value: object) -> str | None:
    good = isinstance(value, str) and _BUNDLE_RANGE.fullmatch(value)
    return None if good else "must be [4.0.0, 5.0.0): the supported bundle, as a range that hosts find"


def _checkpointing(value: object) -> str | None:
    return None if value is True else "must stay true: without checkpoints every start begins from the oldest event"


def _telemetry_types(value: object) -> str | None:
    good = isinstance(value, str) and _TELEMETRY.fullmatch(value)
    return None if good else "must name telemetry types, divided by semicolons"


def _retry(_: object) -> str | None:
    return "was removed from host.json; a retry policy belongs to its function"


_EVENT_HUBS: Final[Shape] = {
    "maxEventBatchSize": integer(1),
    "minEventBatchSize": integer(1),
    "maxWaitTime": time_span(high=timedelta(minutes=10)),
    # More than one batch per checkpoint misleads the scale controller, which counts events behind the checkpoint.
    "batchCheckpointFrequency": integer(1, 1),
    "prefetchCount": integer(1),
    "transportType": one_of("amqpTcp", "amqpWebSockets"),
    "webProxy": text,
    "customEndpointAddress": text,
    "targetUnprocessedEventThreshold": integer(1),
    # These four are in the extension's options (Azure/azure-sdk-for-net, EventHubOptions) and not in the table.
    "loadBalancingUpdateInterval": time_span(timedelta(seconds=1)),
    "partitionOwnershipExpirationInterval": time_span(timedelta(seconds=1)),
    "trackLastEnqueuedEventProperties": boolean,
    "enableCheckpointing": _checkpointing,
    "initialOffsetOptions": {"type": one_of("fromStart", "fromEnd", "fromEnqueuedTime"), "enqueuedTimeUtc": text},
    "clientRetryOptions": {
        "mode": one_of("exponential", "fixed"),
        "tryTimeout": time_span(timedelta(milliseconds=1)),
        "delay": time_span(timedelta(milliseconds=1)),
        "maximumDelay": time_span(timedelta(milliseconds=1)),
        "maximumRetries": integer(0, 100),
    },
}

_SAMPLING: Final[Shape] = {
    "isEnabled": boolean,
    "maxTelemetryItemsPerSecond": number(0.1),
    "evaluationInterval": time_span(timedelta(seconds=1)),
    "initialSamplingPercentage": number(0, 100),
    "samplingPercentageIncreaseTimeout": time_span(),
    "samplingPercentageDecreaseTimeout": time_span(),
    "minSamplingPercentage": number(0, 100),
    "maxSamplingPercentage": number(0, 100),
    "movingAverageRatio": number(0, 1),
    "excludedTypes": _telemetry_types,
    "includedTypes": _telemetry_types,
}

_HOST: Final[Shape] = {
    "$schema": text,
    "version": one_of("2.0"),
    "aggregator": {"batchSize": integer(1), "flushTimeout": time_span()},
    "concurrency": {"dynamicConcurrencyEnabled": boolean, "snapshotPersistenceEnabled": boolean},
    "customHandler": anything,
    "extensionBundle": {"id": one_of(_BUNDLE), "version": _bundle_range},
    "extensions": {
        "blobs": {"maxDegreeOfParallelism": integer(1), "poisonBlobThreshold": integer(1)},
        "cosmosDB": anything,
        "durableTask": anything,
        "eventHubs": _EVENT_HUBS,
        "http": {
            "routePrefix": text,
            "maxOutstandingRequests": integer(-1),
            "maxConcurrentRequests": integer(-1),
            "dynamicThrottlesEnabled": boolean,
            "hsts": {
                "isEnabled": boolean,
                "maxAge": text,
                "excludedHosts": texts,
                "includeSubDomains": boolean,
                "preload": boolean,
            },
            "customHeaders": mapping(text),
        },
        "kafka": anything,
        "queues": {
            "maxPollingInterval": time_span(timedelta(milliseconds=100)),
            "visibilityTimeout": time_span(),
            "batchSize": integer(1, 32),
            "maxDequeueCount": integer(1),
            "newBatchThreshold": integer(0, 1000),
            "messageEncoding": one_of("base64", "none"),
        },
        "sendGrid": anything,
        "serviceBus": anything,
    },
    "functions": texts,
    "functionTimeout": _function_timeout,
    "healthMonitor": {
        "enabled": boolean,
        "healthCheckInterval": time_span(timedelta(seconds=1)),
        "healthCheckWindow": time_span(timedelta(seconds=1)),
        "healthCheckThreshold": integer(1),
        "counterThreshold": number(0, 1),
    },
    "logging": {
        "fileLoggingMode": one_of("never", "always", "debugOnly"),
        "logLevel": mapping(one_of(*_LEVELS)),
        "console": {"isEnabled": boolean, "DisableColors": boolean},
        "applicationInsights": {
            "samplingSettings": _SAMPLING,
            "samplingExcludedTypes": _telemetry_types,
            "samplingIncludedTypes": _telemetry_types,
            "enableLiveMetrics": boolean,
            "enableDependencyTracking": boolean,
            "enablePerformanceCountersCollection": boolean,
            "httpAutoCollectionOptions": {
                "enableHttpTriggerExtendedInfoCollection": boolean,
                "enableW3CDistributedTracing": boolean,
                "enableResponseHeaderInjection": boolean,
            },
            "snapshotConfiguration": anything,
        },
    },
    "managedDependency": {"enabled": boolean},
    "retry": _retry,
    "singleton": {
        "lockPeriod": time_span(timedelta(seconds=15), timedelta(seconds=60)),
        "listenerLockPeriod": time_span(timedelta(seconds=15), timedelta(seconds=60)),
        "listenerLockRecoveryPollingInterval": time_span(timedelta(seconds=15)),
        "lockAcquisitionTimeout": time_span(),
        "lockAcquisitionPollingInterval": time_span(),
    },
    "telemetryMode": one_of("OpenTelemetry"),
    "watchDirectories": texts,
    "watchFiles": texts,
}


def check_host_json(path: Path) -> list[Problem]:
    """Every deviation of a host.json from the documentation."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return [Problem(path, "host.json", f"cannot be read: {error}")]
    if not isinstance(document, dict):
        return [Problem(path, "host.json", "must be an object")]
    findings = [*walk(document, _HOST, ""), *_missing(document), *_contradictions(document)]
    return [Problem(path, "host.json", f"{where} {message}") for where, message in findings]


def _missing(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "version" not in document:
        yield "version", "is missing: the host reads the file as that of version 1"
    bundle = document.get("extensionBundle")
    if not isinstance(bundle, dict) or not {"id", "version"} <= bundle.keys():
        yield "extensionBundle", "needs id and version: without the bundle only HTTP and timer triggers exist"
    if "functionTimeout" not in document:
        yield "functionTimeout", "is missing: the plan's default is half an hour"


def _contradictions(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    extensions = document.get("extensions")
    hubs = extensions.get("eventHubs") if isinstance(extensions, dict) else None
    if not isinstance(hubs, dict):
        return
    least, most = hubs.get("minEventBatchSize", 1), hubs.get("maxEventBatchSize", 100)
    if isinstance(least, int) and isinstance(most, int) and least > 1 and least >= most:
        yield "extensions.eventHubs.minEventBatchSize", f"must be less than maxEventBatchSize ({most})"
    offset = hubs.get("initialOffsetOptions")
    if isinstance(offset, dict) and offset.get("type") == "fromEnqueuedTime" and not offset.get("enqueuedTimeUtc"):
        yield "extensions.eventHubs.initialOffsetOptions.enqueuedTimeUtc", "is needed with fromEnqueuedTime"
    if hubs.get("webProxy") and hubs.get("transportType", "amqpTcp") == "amqpTcp":
        yield "extensions.eventHubs.webProxy", "needs transportType amqpWebSockets"
    retry = hubs.get("clientRetryOptions")
    if isinstance(retry, dict):
        delay, limit = parse_time_span(retry.get("delay")), parse_time_span(retry.get("maximumDelay"))
        if delay is not None and limit is not None and delay > limit:
            yield "extensions.eventHubs.clientRetryOptions.delay", "is longer than maximumDelay"
