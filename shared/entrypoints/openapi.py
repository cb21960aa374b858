"""The interface description (OpenAPI 3.1), made from the shapes and one table of routes."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from shared.domain.identifiers import MAX_IDENTIFIER_LENGTH
from shared.entrypoints import wire_shapes as shapes

type Schema = dict[str, Any]

_REF: Final = "#/components/schemas/{model}"
_KEY: Final[list[dict[str, list[str]]]] = [{"key": []}]
_RETRY: Final = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
_TIMING: Final = {"Server-Timing": {"description": "Where the time went, milliseconds.", "schema": {"type": "string"}}}
_REPLAYED: Final = {
    "Idempotent-Replayed": {"description": "`true` if it was decided before.", "schema": {"const": "true"}}
}
_PROBLEMS: Final = {
    400: "The body or a parameter breaks a rule; `field` and `rule` name it.",
    404: "There is no such thing.",
    409: "The transaction id was used before with another body; nothing was changed.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    422: "Another currency than the deployment's.",
    500: "A fault of ours; it was logged.",
    503: "It cannot be done now; sending the same again is safe.",
}
_ID_PARAMETER: Final[Schema] = {
    "name": "transaction_id",
    "in": "path",
    "required": True,
    "description": "As it was sent, percent-encoded.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_IDENTIFIER_LENGTH, "pattern": "^[!-~]+$"},
}
_REPLAY_PARAMETER: Final[Schema] = {
    "name": "replay",
    "in": "query",
    "description": "Also compute the decision again from its stored vector and compare.",
    "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
}


@cache
def document(version: str) -> Schema:
    """The whole description; its paths are those of the app, with the prefix `/api`."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tollgate scoring",
            "version": version,
            "description": "A decision for every card payment: durable before it is answered, explained, replayable. "
            "Sending the same transaction again is always safe and gets the stored answer, byte for byte.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/api"}],
        "paths": {
            "/score": {
                "post": _operation(
                    "score",
                    "Decide one transaction",
                    body=shapes.Transaction,
                    answer=shapes.Decision,
                    headers={**_REPLAYED, **_TIMING},
                    problems=(400, 409, 413, 415, 422, 500, 503),
                )
            },
            "/score/batch": {
                "post": _operation(
                    "score_batch",
                    "Decide up to a thousand transactions",
                    body=shapes.Transactions,
                    answer=shapes.Results,
                    headers=_TIMING,
                    problems=(400, 413, 415, 500, 503),
                )
            },
            "/decisions/{transaction_id}": {
                "get": _operation(
                    "decision",
                    "All that a decision knew",
                    answer=shapes.KnownDecision,
                    parameters=[_ID_PARAMETER, _REPLAY_PARAMETER],
                    problems=(400, 404, 500, 503),
                )
            },
            "/models": {
                "get": _operation("models", "Which model decides", answer=shapes.Models, problems=(500, 503)),
            },
            "/health/live": {
                "get": _operation("health_live", "Does the process answer", answer=shapes.Live, key=False)
            },
            "/health/ready": {
                "get": _operation(
                    "health_ready",
                    "Can it decide, and what is missing",
                    answer=shapes.Ready,
                    key=False,
                    problems=(503,),
                )
            },
            "/metrics": {"get": _text("metrics", "Counts for Prometheus", "text/plain")},
            "/openapi.json": {
                "get": _operation("openapi", "This description", answer=None, key=False),
            },
            "/docs": {"get": _text("docs", "This description as a page", "text/html", key=False)},
            "/manage/status": {
                "get": _operation("manage_status", "What this worker process is doing", answer=shapes.Status)
            },
            "/manage/roles": {
                "get": _operation("manage_roles", "Who gave which role to which model", answer=shapes.GivenRoles)
            },
            "/manage/reload": {
                "post": _operation(
                    "manage_reload", "Look for a new champion now", answer=shapes.Status, problems=(500, 503)
                )
            },
        },
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "x-functions-key"}},
        },
    }


def _operation(
    operation_id: str,
    summary: str,
    *,
    answer: type[BaseModel] | None,
    body: type[BaseModel] | None = None,
    parameters: list[Schema] | None = None,
    headers: Schema | None = None,
    problems: tuple[int, ...] = (),
    key: bool = True,
) -> Schema:
    schema = _ref(answer) if answer else {"type": "object"}
    good: Schema = {"description": "Done.", "content": {"application/json": {"schema": schema}}}
    if headers:
        good["headers"] = headers
    responses: Schema = {"200": good, **{str(status): _problem(status) for status in problems}}
    if key:
        responses["401"] = {"description": "No key, or a wrong one; without a body."}
    operation: Schema = {"operationId": operation_id, "summary": summary, "responses": responses}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    if parameters:
        operation["parameters"] = parameters
    if key:
        operation["security"] = _KEY
    return operation


def _text(operation_id: str, summary: str, media_type: str, *, key: bool = True) -> Schema:
    operation = _operation(operation_id, summary, answer=None, key=key)
    operation["responses"]["200"]["content"] = {media_type: {"schema": {"type": "string"}}}
    return operation


def _problem(status: int) -> Schema:
    found: Schema = {
        "description": _PROBLEMS[status],
        "content": {"application/problem+json": {"schema": _ref(shapes.Problem)}},
    }
    return {**found, "headers": _RETRY} if status == 503 else found


def _ref(shape: type[BaseModel]) -> Schema:
    return {"$ref": _REF.format(model=shape.__name__)}


def _schemas() -> Schema:
    top = (
        shapes.Transaction,
        shapes.Transactions,
        shapes.Decision,
        shapes.Results,
        shapes.KnownDecision,
        shapes.Models,
        shapes.Live,
        shapes.Ready,
        shapes.Status,
        shapes.GivenRoles,
        shapes.Problem,
    )
    _, found = models_json_schema([(shape, "serialization") for shape in top], ref_template=_REF)
    definitions: Schema = found["$defs"]
    return definitions
