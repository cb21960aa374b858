"""The worker's life: load the app, report it, serve until told to drain or until the host is gone."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from twin.host import datums, logs
from twin.host.cors import CorsPolicy
from twin.host.errors import WORKER_LOST_HOST, WORKER_TIMED_OUT
from twin.host.ipc import Channel, ChannelClosed, Payload
from twin.host.keyring import Keyring
from twin.host.loads import Loads
from twin.host.protos import ParameterBinding, TypedData
from twin.host.routing import Router, parse_route
from twin.host.worker.front import Front, HttpFunction, Limits
from twin.host.worker.runtime import App, LoadFailed, Outcome, Retry, TimedOut
from twin.host.worker.server import Server

log = logging.getLogger("twin.host.worker")

# A function that blocks the event loop cannot be answered for; after this much more the whole process ends.
BLOCKED_SLACK_S = 5.0

# How long exit functions may take: the host waits a little longer (`workerproc.LEAVING_PATIENCE_S`).
LEAVING_S = 10.0


class Worker:
    """One worker process and what it has been told."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self._order = order
        self._app: App | None = None
        self._server: Server | None = None
        self._listening = socket.socket(fileno=order["listen_fd"])
        self._loads = Loads(order["loads_fd"], order["workers"])
        self._leaving = asyncio.Event()
        self._exit_code = 0
        self._channel: Channel

    async def run(self) -> int:
        """The whole life; returns the exit code."""
        end = socket.socket(fileno=self._order["control_fd"])
        self._channel = await Channel.over(end, self._handle)
        serving = asyncio.create_task(self._channel.run())
        await self._load()
        leaving = asyncio.create_task(self._leaving.wait())
        await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not leaving.done():
            leaving.cancel()
            return WORKER_LOST_HOST
        return self._exit_code

    async def _load(self) -> None:
        try:
            self._app = await App.load(self._order["app_dir"])
        except LoadFailed as failure:
            await self._channel.tell("failed", {"message": failure.message, "stack_trace": failure.stack_trace})
            return
        runtime = self._app.runtime
        logs.set_invocation_source(lambda: runtime.invocation_id_cv.get(None))
        functions = [
            {
                "name": function.name,
                "function_id": function.function_id,
                "bindings": list(function.bindings),
                "retry": function.retry,
            }
            for function in self._app.functions.values()
        ]
        modules = [name for name in sys.modules if name.split(".")[0] == "azurefunctions"]
        await self._channel.tell("loaded", {"functions": functions, "extensions": sorted(modules)})

    async def _handle(self, op: str, payload: Payload) -> Payload:
        if op == "serve":
            return self._serve(payload.body)
        if op == "invoke":
            return await self._invoke(payload)
        if op == "close":
            if self._server is not None:
                self._server.close()
            return Payload()
        if op == "drain":
            return await self._drain(float(str(payload.body["grace_s"])))
        raise ValueError(f"unknown operation {op!r}")

    def _serve(self, orders: Mapping[str, Any]) -> Payload:
        """Begin to answer HTTP. The parent has checked and resolved everything in `orders`."""
        app = self._loaded_app()
        app.timeout_s = orders["timeout_s"]
        functions: dict[str, HttpFunction] = {}
        routes = []
        for route in orders["routes"]:
            name = route["function"]
            functions[name] = HttpFunction(app.functions[name], route["trigger"], route["level"], route["outputs"])
            routes.append(parse_route(name, route["template"], route["methods"], orders["prefix"]))
        limits = Limits(orders["body_bytes"], orders["outstanding"], orders["concurrent"])
        cors = orders["cors"]
        front = Front(
            app=app,
            router=Router(routes),
            functions=functions,
            limits=limits,
            keyring=None if orders["keys"] is None else Keyring.from_json(orders["keys"]),
            cors=None if cors is None else CorsPolicy(frozenset(cors["origins"]), cors["credentials"]),
            custom_headers=[(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in orders["headers"]],
            write_outputs=self._write_outputs,
            admin=self._ask_admin,
            on_timeout=self._report_timeout,
            homepage=orders["homepage"],
            gate=None if limits.concurrent is None else asyncio.Semaphore(limits.concurrent),
        )
        self._server = Server(front, self._listening, self._loads, self._order["place"])
        self._server.start()
        if app.timeout_s is not None:
            self._watch_timeouts(app)
        return Payload()

    def _loaded_app(self) -> App:
        if self._app is None:
            raise RuntimeError("the app is not loaded")
        return self._app

    async def _invoke(self, payload: Payload) -> Payload:
        """Run a timer or hub function (or any other, for the admin route) and send back how it went."""
        app, body = self._loaded_app(), payload.body
        inputs = [ParameterBinding(name=n, data=d) for n, d in datums.unpack_all(body["inputs"], payload.blobs)]
        metadata = dict(datums.unpack_all(body["metadata"], payload.blobs))
        tries: Any = body["retry"]
        try:
            outcome = await app.invoke(
                app.functions[payload.text("function")],
                payload.text("invocation_id"),
                inputs,
                metadata,
                traceparent=payload.text("traceparent"),
                retry=Retry(tries["count"], tries["maximum"], tries["error"]),
            )
        except TimedOut:
            self._report_timeout(payload.text("function"), payload.text("invocation_id"))
            return Payload({"error": "FunctionTimeoutException: the function ran over functionTimeout", "stack": ""})
        if outcome.error is not None:
            return Payload({"error": outcome.error, "stack": outcome.stack_trace})
        blobs: list[bytes] = []
        return Payload({"error": None, "outputs": datums.pack_all(_with_return(outcome), blobs)}, blobs)

    async def _write_outputs(
        self, function: str, invocation_id: str, outcome: Outcome, data: Mapping[str, object]
    ) -> None:
        blobs: list[bytes] = []
        packed = datums.pack_all(outcome.outputs, blobs)
        body: dict[str, object] = {
            "function": function,
            "invocation_id": invocation_id,
            "outputs": packed,
            "data": dict(data),
        }
        await self._channel.ask("outputs", body, blobs)

    async def _ask_admin(self, question: Payload) -> Payload:
        return await self._channel.ask("admin", question.body, question.blobs)

    async def _drain(self, grace_s: float) -> Payload:
        """Stop accepting, let what runs finish, then leave."""
        app, deadline = self._app, time.monotonic() + grace_s
        if self._server is not None:
            await self._server.drain(grace_s)
        # The question that asked for this is no invocation, so only functions are waited for.
        while app is not None and app.flights and time.monotonic() < deadline:
            await asyncio.wait({flight.task for flight in app.flights.values()}, timeout=deadline - time.monotonic())
        asyncio.get_running_loop().call_later(0.05, self._leaving.set)  # after the answer has left
        return Payload({"abandoned": 0 if app is None else len(app.flights)})

    def _report_timeout(self, function: str, invocation_id: str) -> None:
        """A function ran over its time: like the cloud, answer for it and give up this process."""
        log.error("Timeout of functionTimeout exceeded by 'Functions.%s' (Id: %s)", function, invocation_id)
        self._exit_code = WORKER_TIMED_OUT
        asyncio.get_running_loop().call_later(0.2, self._leaving.set)

    def _watch_timeouts(self, app: App) -> None:
        loop = asyncio.get_running_loop()
        pause = min(1.0, (app.timeout_s or 1.0) / 4)

        def cancel_overdue() -> None:
            for _, flight in app.overdue(time.monotonic()):
                if not flight.timed_out:
                    flight.timed_out = True
                    flight.task.cancel()

        def guard() -> None:
            while True:
                time.sleep(pause)
                with contextlib.suppress(RuntimeError):  # the loop is closed: the process is leaving
                    loop.call_soon_threadsafe(cancel_overdue)
                if blocked := app.overdue(time.monotonic(), BLOCKED_SLACK_S):
                    names = ", ".join(sorted({flight.function for _, flight in blocked}))
                    log.error("functionTimeout exceeded and the event loop is blocked by one of: %s", names)
                    os._exit(WORKER_TIMED_OUT)

        threading.Thread(target=guard, name="function-timeout", daemon=True).start()


def _with_return(outcome: Outcome) -> list[tuple[str, TypedData]]:
    values = list(outcome.outputs)
    if outcome.returned is not None and outcome.returned.kind is not None:
        values.append(("$return", outcome.returned))
    return values


def _run_exit_functions() -> None:
    """Call what the app registered for its end, as an interpreter that ends in order does; `LEAVING_S` at most."""
    functions = atexit._run_exitfuncs  # noqa: SLF001  (os._exit leaves them out)
    leaving = threading.Thread(target=functions, name="exit-functions", daemon=True)
    leaving.start()
    leaving.join(LEAVING_S)


def run(order: Mapping[str, Any]) -> None:
    """Live as a worker; ends the process without waiting for threads that functions left behind."""
    logs.install(order["name"], order["log_level"], order["log_format"])
    try:
        import uvloop  # noqa: PLC0415  (absent on Windows)
    except ImportError:
        runner = asyncio.Runner()
    else:
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    code = 1
    with contextlib.suppress(KeyboardInterrupt, ChannelClosed):
        code = runner.run(Worker(order).run())
    _run_exit_functions()
    sys.stdout.flush()
    sys.stderr.flush()
    # A sync function may hang in the thread pool for ever; an orderly exit would wait for it.
    os._exit(code)
