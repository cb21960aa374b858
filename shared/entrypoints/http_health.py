"""Health over HTTP: is the process alive, and can it serve."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import azure.functions as func

from shared.entrypoints.problems import json_response, problem_response
from shared.ports.probes import Dependency
from shared.services import readiness


def live(request: func.HttpRequest) -> func.HttpResponse:
    """200 as soon as the process answers at all; it asks nobody, so a broken dependency restarts nothing."""
    del request
    return json_response({"status": "live"})


def ready(request: func.HttpRequest, dependencies: Sequence[Dependency]) -> func.HttpResponse:
    """200 when everything the app needs can be used, else 503 with what is missing."""
    del request
    states = readiness.check(dependencies)
    shown = [{"name": state.name, "usable": state.usable, "problem": state.problem} for state in states]
    missing = [state.name for state in states if not state.usable]
    if missing:
        return problem_response(HTTPStatus.SERVICE_UNAVAILABLE, "not ready: " + ", ".join(missing), dependencies=shown)
    return json_response({"status": "ready", "dependencies": shown})
