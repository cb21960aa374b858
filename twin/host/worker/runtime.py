"""Drives `azure_functions_runtime`: load the app once, then call its functions in this process."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Protocol

from twin.host import protos
from twin.host.protos import ParameterBinding, TypedData

log = logging.getLogger("twin.host.worker")

HOST_VERSION = "4.1045.0"


class LoadFailed(Exception):
    """The app could not be imported or indexed."""

    def __init__(self, message: str, stack_trace: str) -> None:
        super().__init__(message)
        self.message = message
        self.stack_trace = stack_trace


class TimedOut(Exception):
    """A function ran longer than host.json's functionTimeout."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One function as the app declares it.

    Attributes:
        function_id: The runtime's stable id.
        bindings: Each binding as the library's JSON, decoded.
        retry: max_retry_count, strategy and delays in seconds, or None.
    """

    name: str
    function_id: str
    bindings: tuple[dict[str, object], ...]
    retry: dict[str, object] | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended; `error` is None when it succeeded.

    Attributes:
        error: "ValueError: text" as the runtime words it.
        stack_trace: The function's traceback, for the log.
        returned: The value of `$return`, if any.
        outputs: What was set on each output parameter, by name.
    """

    error: str | None
    stack_trace: str = ""
    returned: TypedData | None = None
    outputs: tuple[tuple[str, TypedData], ...] = ()


@dataclass(slots=True)
class _Flight:
    function: str
    task: asyncio.Task[Any]
    started: float
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """Where a call stands in its function's retry policy."""

    count: int = 0
    maximum: int = 0
    error: str | None = None


class _RuntimeModule(Protocol):
    """The public surface of azure_functions_runtime that is used; a module, so that `rt.x` stays an attribute call."""

    invocation_id_cv: Any

    def start_threadpool_executor(self) -> None: ...
    async def worker_init_request(self, request: object) -> Any: ...
    async def functions_metadata_request(self, request: object) -> Any: ...
    async def function_load_request(self, request: object) -> Any: ...
    async def invocation_request(self, request: object) -> Any: ...


class _Request:
    """The envelope that every runtime call takes."""

    __slots__ = ("name", "properties", "request")

    def __init__(self, name: str, body: object) -> None:
        self.name = name
        self.request = SimpleNamespace(**{name: body})
        self.properties = _PROPERTIES


class _Invocation:
    """The body of an invocation request; plain attributes, because this is built once per call."""

    __slots__ = (
        "function_id",
        "input_data",
        "invocation_id",
        "retry_context",
        "trace_context",
        "trigger_metadata",
    )

    def __init__(
        self,
        *,
        invocation_id: str,
        function_id: str,
        input_data: list[ParameterBinding],
        trigger_metadata: dict[str, TypedData],
        trace_context: SimpleNamespace,
        retry_context: SimpleNamespace,
    ) -> None:
        self.invocation_id = invocation_id
        self.function_id = function_id
        self.input_data = input_data
        self.trigger_metadata = trigger_metadata
        self.trace_context = trace_context
        self.retry_context = retry_context


_PROPERTIES: dict[str, object] = {"protos": protos, "host": "127.0.0.1"}
_NO_RETRY = SimpleNamespace(retry_count=0, max_retry_count=0, exception=None)
_FIRST = Retry()


@dataclass(slots=True)
class App:
    """The function app of this process. There can be only one: its module, registry and environment are global."""

    runtime: _RuntimeModule
    functions: dict[str, Loaded]
    timeout_s: float | None = None
    flights: dict[str, _Flight] = field(default_factory=dict)

    @classmethod
    async def load(cls, app_dir: str) -> App:
        """Import and index `function_app.py` of `app_dir`, which must be on `sys.path` already.

        Raises:
            LoadFailed: with the app's own message and stack trace.
        """
        try:
            runtime: Any = importlib.import_module("azure_functions_runtime")
        except ImportError as missing:
            raise LoadFailed(f"the app's packages lack azure-functions-runtime: {missing}", "") from missing
        # Without this the library falls back to asyncio's default pool and ignores PYTHON_THREADPOOL_THREAD_COUNT.
        runtime.start_threadpool_executor()
        body = SimpleNamespace(capabilities={}, function_app_directory=app_dir, host_version=HOST_VERSION)
        try:
            answer = await runtime.worker_init_request(_Request("worker_init_request", body))
        except BaseException as problem:  # SystemExit at import passes the library's own guard
            raise LoadFailed(f"{type(problem).__name__}: {problem}", "") from problem
        if answer.result.status != protos.StatusResult.Success:
            raise LoadFailed(answer.result.exception.message, answer.result.exception.stack_trace)
        if "HttpUri" in (answer.capabilities or {}):
            raise LoadFailed("HTTP streaming (azurefunctions.extensions.http) is not supported by this host", "")
        listing = await runtime.functions_metadata_request(_Request("functions_metadata_request", SimpleNamespace()))
        app = cls(runtime, {})
        for found in listing.function_metadata_results or ():
            loading = SimpleNamespace(function_id=found.function_id, metadata=found)
            await runtime.function_load_request(_Request("function_load_request", loading))
            app.functions[found.name] = _describe(found)
        return app

    async def invoke(
        self,
        function: Loaded,
        invocation_id: str,
        inputs: list[ParameterBinding],
        metadata: dict[str, TypedData],
        *,
        traceparent: str = "",
        tracestate: str = "",
        retry: Retry = _FIRST,
    ) -> Outcome:
        """Run a function to its end in this process. Never raises for what the function does, SystemExit included.

        Raises:
            asyncio.CancelledError: only if the calling task itself is cancelled.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("functions run inside a task")
        flight = _Flight(function.name, task, time.monotonic())
        self.flights[invocation_id] = flight
        # The library sets this for sync functions only; async ones run in this very task.
        self.runtime.invocation_id_cv.set(invocation_id)
        trace = SimpleNamespace(trace_parent=traceparent, trace_state=tracestate, attributes={})
        body = _Invocation(
            invocation_id=invocation_id,
            function_id=function.function_id,
            input_data=inputs,
            trigger_metadata=metadata,
            trace_context=trace,
            retry_context=_retry_context(retry),
        )
        try:
            answer = await self.runtime.invocation_request(_Request("invocation_request", body))
        except BaseException as problem:  # an async function may let CancelledError or SystemExit escape
            if flight.timed_out:
                task.uncancel()
                raise TimedOut(function.name) from problem
            if task.cancelling():
                raise
            return Outcome(error=f"{type(problem).__name__}: {problem}")
        finally:
            del self.flights[invocation_id]
        if answer.result.status != protos.StatusResult.Success:
            return Outcome(answer.result.exception.message, answer.result.exception.stack_trace)
        outputs = tuple((item.name, item.data) for item in answer.output_data or ())
        return Outcome(error=None, returned=answer.return_value, outputs=outputs)

    def overdue(self, now: float, slack_s: float = 0.0) -> list[tuple[str, _Flight]]:
        """Calls that have run longer than the timeout plus `slack_s`."""
        if self.timeout_s is None:
            return []
        limit = now - self.timeout_s - slack_s
        return [(key, flight) for key, flight in list(self.flights.items()) if flight.started < limit]


def _retry_context(retry: Retry) -> SimpleNamespace:
    if retry is _FIRST:
        return _NO_RETRY
    problem = None if retry.error is None else protos.RpcException(source="", stack_trace="", message=retry.error)
    return SimpleNamespace(retry_count=retry.count, max_retry_count=retry.maximum, exception=problem)


def _describe(found: Any) -> Loaded:
    bindings = tuple(json.loads(raw) for raw in found.raw_bindings)
    retry: dict[str, object] | None = None
    if found.retry_options is not None:
        options = found.retry_options
        retry = {"max_retry_count": options.max_retry_count, "strategy": str(options.retry_strategy)}
        for name in ("delay_interval", "minimum_interval", "maximum_interval"):
            span = getattr(options, name)
            if span is not None:
                retry[name] = span.total_seconds()
    return Loaded(found.name, found.function_id, bindings, retry)
