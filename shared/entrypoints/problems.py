"""What an error means on the wire: the one table from Tollgate's errors to HTTP (RFC 9457 problem details)."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from http import HTTPStatus

import azure.functions as func

from shared.domain.errors import (
    BrokenInvariant,
    Conflict,
    InvalidInput,
    NotFound,
    OtherCurrency,
    Overloaded,
    TollgateError,
    Transient,
)
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)

RETRY_AFTER_S = 1
"""What a client is told to wait after a transient fault, seconds."""

_STATUS: tuple[tuple[type[TollgateError], HTTPStatus], ...] = (
    (NotFound, HTTPStatus.NOT_FOUND),
    (Conflict, HTTPStatus.CONFLICT),
    (OtherCurrency, HTTPStatus.UNPROCESSABLE_ENTITY),
    (InvalidInput, HTTPStatus.BAD_REQUEST),
    (Transient, HTTPStatus.SERVICE_UNAVAILABLE),
    (BrokenInvariant, HTTPStatus.INTERNAL_SERVER_ERROR),
)

type Handler = Callable[[func.HttpRequest], func.HttpResponse]


def json_response(document: object, status: HTTPStatus = HTTPStatus.OK) -> func.HttpResponse:
    """An `application/json` answer."""
    return func.HttpResponse(json.dumps(document), status_code=status, mimetype="application/json")


def problem_document(status: HTTPStatus, detail: str, **members: object) -> dict[str, object]:
    """A problem as RFC 9457 words it; `members` are extension members, such as `field` and `rule`."""
    return {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail, **members}


def problem_response(
    status: HTTPStatus, detail: str, *, retry_after_s: int = RETRY_AFTER_S, **members: object
) -> func.HttpResponse:
    """An `application/problem+json` answer; with 503 it says when to come again."""
    headers = {"Retry-After": str(retry_after_s)} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return func.HttpResponse(
        json.dumps(problem_document(status, detail, **members)),
        status_code=status,
        headers=headers,
        mimetype="application/problem+json",
    )


def status_of(error: TollgateError) -> HTTPStatus:
    """The status that an error means."""
    return next(status for kind, status in _STATUS if isinstance(error, kind))


def describe(error: TollgateError) -> tuple[HTTPStatus, str, dict[str, object]]:
    """Status, detail and further members of the problem; what a client cannot mend is not described to it."""
    status = status_of(error)
    if isinstance(error, InvalidInput):
        return status, str(error), {"field": error.field, "rule": error.rule}
    return status, "try again" if isinstance(error, Transient) else "the fault was logged", {}


def answer(error: TollgateError) -> func.HttpResponse:
    """The answer to a request that ended in an error."""
    status, detail, members = describe(error)
    wait_s = error.retry_after_s if isinstance(error, Overloaded) else RETRY_AFTER_S
    return problem_response(status, detail, retry_after_s=wait_s, **members)


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
