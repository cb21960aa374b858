"""The admin routes: status, functions, and running a function by hand.

Shapes follow the cloud's documented host API as far as tools use it; see docs/host-likeness.md for what is left out.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import time
from collections.abc import Callable
from typing import Any

from twin.host.bindings import Function, HttpTrigger, HubTrigger
from twin.host.generation import Generation
from twin.host.hub.payload import manual_payload
from twin.host.ipc import Payload
from twin.host.protos import TypedData
from twin.host.timers.payload import timer_json
from twin.host.worker.runtime import HOST_VERSION

log = logging.getLogger(__name__)


class Admin:
    """Answers `/admin/...` for the generation that is current.

    Args:
        current: The generation in service.
        host_id: The app's id, shared by all its instances.
        instance_id: This process's id.
        state: The host's state in a word, as the cloud names it.
    """

    def __init__(
        self, current: Callable[[], Generation], host_id: str, instance_id: str, state: Callable[[], str]
    ) -> None:
        self._current = current
        self._host_id = host_id
        self._instance_id = instance_id
        self._state = state
        self._started = time.monotonic()
        self._runs: set[asyncio.Task[object]] = set()

    async def answer(self, question: Payload) -> Payload:
        """One request: method, path and body in; status and JSON out."""
        method = question.text("method")
        parts = [part for part in question.text("path").split("/") if part][1:]
        match method, [part.lower() for part in parts[:2]], len(parts):
            case "GET" | "HEAD" | "POST", ["host", "ping"], 2:
                return Payload({"status": 200})
            case "GET", ["host", "status"], 2:
                return _json(200, self._status())
            case "GET", ["functions"], 1:
                return _json(200, [self._describe(function) for function in self._current().functions.values()])
            case "GET", ["functions", _], 2:
                found = self._find(parts[1])
                return Payload({"status": 404}) if found is None else _json(200, self._describe(found))
            case "POST", ["functions", _], 2:
                found = self._find(parts[1])
                return Payload({"status": 404}) if found is None else self._run(found, b"".join(question.blobs))
        return Payload({"status": 404})

    def _find(self, name: str) -> Function | None:
        for known, function in self._current().functions.items():
            if known.lower() == name.lower():
                return function
        return None

    def _status(self) -> dict[str, Any]:
        generation = self._current()
        return {
            "id": self._host_id,
            "state": self._state(),
            "version": HOST_VERSION,
            "versionDetails": f"{HOST_VERSION}+tollgate",
            "instanceId": self._instance_id,
            "computerName": platform.node(),
            "processUptime": int((time.monotonic() - self._started) * 1000),
            "processId": os.getpid(),
            "workers": generation.pool.pids,
            "functions": sorted(generation.functions),
        }

    def _describe(self, function: Function) -> dict[str, Any]:
        generation = self._current()
        template = None
        if isinstance(function.trigger, HttpTrigger):
            prefix = generation.hostjson.http.route_prefix.strip("/")
            template = f"/{prefix}/{function.trigger.template}" if prefix else f"/{function.trigger.template}"
        return {
            "name": function.name,
            "language": "python",
            "isDisabled": False,
            "isDirect": False,
            "isProxy": False,
            "invoke_url_template": template,
            "config": {
                "name": function.name,
                "scriptFile": "function_app.py",
                "functionDirectory": str(generation.config.app_dir),
                "entryPoint": function.name,
                "language": "python",
                "bindings": [dict(binding) for binding in function.raw],
            },
        }

    def _run(self, function: Function, body: bytes) -> Payload:
        """Start a function with a given input and answer at once, as the cloud does."""
        if isinstance(function.trigger, HttpTrigger):
            return _json(400, {"message": f"{function.name} is an HTTP function: call its route"})
        try:
            given = json.loads(body) if body.strip() else {}
        except ValueError:
            return _json(400, {"message": "the body must be JSON"})
        text = given.get("input") if isinstance(given, dict) else None
        if text is not None and not isinstance(text, str):
            text = json.dumps(text)
        metadata: list[tuple[str, TypedData]] = []
        if isinstance(function.trigger, HubTrigger):
            value, metadata = manual_payload(function.trigger, text or "")
        else:
            value = TypedData(json=timer_json(past_due=False, status=None, adjust_for_dst=True))
        run = asyncio.create_task(self._current().invoke(function, [(function.trigger.name, value)], metadata))
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)
        return Payload({"status": 202})


def _json(status: int, document: object) -> Payload:
    return Payload({"status": status}, [json.dumps(document).encode()])
