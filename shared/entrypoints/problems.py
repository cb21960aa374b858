"""What an error means on the wire: the one table from Tollgate's errors to HTTP (RFC 9457 problem details)."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from http import HTTPStatus

import azure.functions as func

from shared.domain.errors import BrokenInvariant, InvalidInput, NotFound, TollgateError, Transient
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)

RETRY_AFTER_S = 1
"""What a client is told to wait after a transient fault, seconds."""

_STATUS: tuple[tuple[type[TollgateError], HTTPStatus], ...] = (
    (NotFound, HTTPStatus.NOT_FOUND),
    (InvalidInput, HTTPStatus.BAD_REQUEST),
    (Transient, HTTPStatus.SERVICE_UNAVAILABLE),
    (BrokenInvariant, HTTPStatus.INTERNAL_SERVER_ERROR),
)

type Handler = Callable[[func.HttpRequest], func.HttpResponse]


def json_response(document: object, status: HTTPStatus = HTTPStatus.OK) -> func.HttpResponse:
    """An `application/json` answer."""
    return func.HttpResponse(json.dumps(document), status_code=status, mimetype="application/json")


def problem_response(status: HTTPStatus, detail: str, **members: object) -> func.HttpResponse:
    """An `application/problem+json` answer; `members` are extension members, such as `field` and `rule`."""
    document = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail, **members}
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return func.HttpResponse(
        json.dumps(document), status_code=status, headers=headers, mimetype="application/problem+json"
    )


def answer(error: TollgateError) -> func.HttpResponse:
    """The answer to a request that ended in an error; what a client cannot mend is not described to it."""
    status = next(status for kind, status in _STATUS if isinstance(error, kind))
    if isinstance(error, InvalidInput):
        return problem_response(status, str(error), field=error.field, rule=error.rule)
    return problem_response(status, "try again" if isinstance(error, Transient) else "the fault was logged")


def answering(handler: Handler) -> Handler:
    """Answer errors of a handler by the table; one that is no fault of the sender is logged with its traceback."""

    @functools.wraps(handler)
    def guarded(request: func.HttpRequest) -> func.HttpResponse:
        try:
            return handler(request)
        except InvalidInput as error:
            return answer(error)
        except TollgateError as error:
            _log.exception(with_fields("request failed", method=request.method, error=type(error).__name__))
            return answer(error)

    return guarded
