"""What every route of the score app goes through: counted, timed, errors told by the one table, cross-origin rules."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import azure.functions as func

from shared.domain.errors import BrokenInvariant, InvalidInput, Overloaded, TollgateError
from shared.entrypoints.problems import answer
from shared.entrypoints.wire_cors import Cors
from shared.services.metering import DURATION, ERRORS, OVERLOADS, REQUESTS, STATUSES, Meters
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timed:
    """A good answer of which is known where its time went; its response is made once, with all headers.

    Attributes:
        body: JSON.
        headers: Beside those that every answer has.
        stages: Seconds by stage.
    """

    body: bytes
    headers: dict[str, str]
    stages: Mapping[str, float]


type AsyncHandler = Callable[[func.HttpRequest], Awaitable[func.HttpResponse | Timed]]
type SyncHandler = Callable[[func.HttpRequest], func.HttpResponse]


class Front:
    """Runs handlers and counts what they answered."""

    def __init__(self, meters: Meters, cors: Cors, timer: Callable[[], float] = time.perf_counter) -> None:
        self.meters = meters
        self.cors = cors
        self._timer = timer

    async def run(self, route: str, request: func.HttpRequest, handler: AsyncHandler) -> func.HttpResponse:
        """Answer a request on the event loop; `route` is the group that it is counted in."""
        began = self._timer()
        response: func.HttpResponse | Timed
        try:
            response = await handler(request)
        except Exception as error:  # noqa: BLE001 - the outermost line: the caller is told, the log has the traceback
            response = self._failed(request, error)
        return self._finish(route, request, response, began)

    def run_sync(self, route: str, request: func.HttpRequest, handler: SyncHandler) -> func.HttpResponse:
        """The same in a thread of the worker's pool."""
        began = self._timer()
        try:
            response = handler(request)
        except Exception as error:  # noqa: BLE001 - the outermost line: the caller is told, the log has the traceback
            response = self._failed(request, error)
        return self._finish(route, request, response, began)

    def _failed(self, request: func.HttpRequest, error: Exception) -> func.HttpResponse:
        if isinstance(error, Overloaded):
            self.meters.count(OVERLOADS)
            _log.warning(with_fields("request refused", reason=str(error)))
        elif not isinstance(error, InvalidInput):
            _log.error(with_fields("request failed", method=request.method, error=type(error).__name__), exc_info=error)
        return answer(error if isinstance(error, TollgateError) else BrokenInvariant(type(error).__name__))

    def _finish(
        self, route: str, request: func.HttpRequest, answered: func.HttpResponse | Timed, began: float
    ) -> func.HttpResponse:
        seconds = self._timer() - began
        total = f"total;dur={seconds * 1000:.3f}"
        if isinstance(answered, Timed):
            stages = [f"{stage};dur={taken * 1000:.3f}" for stage, taken in answered.stages.items()]
            headers = {**answered.headers, "Server-Timing": ", ".join([*stages, total])}
            response = func.HttpResponse(answered.body, headers=headers, mimetype="application/json")
        else:
            response = answered
            response.headers["Server-Timing"] = total
        status = response.status_code
        if str(status) in STATUSES:
            self.meters.count(REQUESTS, route, str(int(status)))
        self.meters.record(DURATION, seconds, route)
        if status >= HTTPStatus.BAD_REQUEST:
            self.meters.count(ERRORS, route, "server" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "client")
        return self.cors.admit(request, response)
