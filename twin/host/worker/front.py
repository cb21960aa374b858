"""The HTTP front of a worker: an ASGI application from the wire to a function and back.

What the cloud's host does to a request on its way into Python (read from its source, see docs/host-likeness.md): header
names in lower case, repeated headers and repeated query keys joined with a comma, query keys without a value dropped,
route parameters as strings, the body always as bytes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from twin.host.cors import CorsPolicy
from twin.host.ipc import Payload
from twin.host.keyring import Keyring
from twin.host.protos import ParameterBinding, RpcHttp, TypedData
from twin.host.routing import Router
from twin.host.worker.cookies import set_cookie
from twin.host.worker.runtime import App, Loaded, Outcome, TimedOut

log = logging.getLogger("twin.host.http")

type Scope = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
type Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
type Headers = list[tuple[bytes, bytes]]

# Functions on a loopback port see their own address as plain HTTP; a front end in the cloud would have ended TLS.
SCHEME = "http"
HOME_PAGE = b"<!DOCTYPE html><title>Tollgate</title><p>Your function app is up and running.</p>"


class BodyTooLarge(Exception):
    """The request body is over FUNCTIONS_REQUEST_BODY_SIZE_LIMIT."""


class ClientGone(Exception):
    """The client closed the connection before the whole request had arrived."""


@dataclass(frozen=True, slots=True)
class HttpFunction:
    """What the front needs of a function.

    Attributes:
        trigger: Name of the request parameter.
        level: Key level in lower case: anonymous, function or admin.
        outputs: Whether the parent has output bindings to write before the answer leaves.
    """

    loaded: Loaded
    trigger: str
    level: str
    outputs: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on requests; None is unbounded.

    Attributes:
        body_bytes: Largest request body.
        outstanding: Requests held by this worker, waiting ones included; one more gets 429.
        concurrent: Functions executing at once in this worker; further requests wait.
    """

    body_bytes: int
    outstanding: int | None
    concurrent: int | None


type WriteOutputs = Callable[[str, str, Outcome, Mapping[str, object]], Awaitable[None]]
type Admin = Callable[[Payload], Awaitable[Payload]]


@dataclass(slots=True)
class Front:
    """The ASGI application."""

    app: App
    router: Router
    functions: dict[str, HttpFunction]
    limits: Limits
    keyring: Keyring | None
    cors: CorsPolicy | None
    custom_headers: Headers
    write_outputs: WriteOutputs
    admin: Admin
    on_timeout: Callable[[str, str], None]
    homepage: bool = True
    outstanding: int = 0
    gate: asyncio.Semaphore | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers = _join(scope["headers"])
        try:
            status, extra, body = await self._answer(scope, headers, receive)
        except ClientGone:
            return
        if self.cors is not None:
            extra = [*extra, *self.cors.headers_for(headers.get("origin"))]
        if self.custom_headers:
            extra = [*extra, *self.custom_headers]
        if status >= 200 and status not in {204, 304}:
            extra.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": extra})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, headers: dict[str, str], receive: Receive) -> tuple[int, Headers, bytes]:
        method: str = scope["method"]
        raw_path: bytes = scope["raw_path"]
        if method == "OPTIONS" and self.cors is not None and self.cors.is_preflight(headers):
            return 204, self.cors.preflight_headers(headers), b""
        # Reserved by the host, so that no catch-all route can hide it.
        found = None if raw_path[:7].lower() == b"/admin/" else self.router.find(method, raw_path)
        if found is None:
            return await self._elsewhere(scope, headers, receive)
        function = self.functions[found[0]]
        query = _query(scope["query_string"])
        if self.keyring is not None and not self.keyring.allows(function.level, function.loaded.name, headers, query):
            return 401, [], b""
        if self.limits.outstanding is not None and self.outstanding >= self.limits.outstanding:
            return 429, [], b""
        self.outstanding += 1
        try:
            body = await self._body(headers, receive)
            request = RpcHttp(
                method=method,
                url=_url(scope, headers),
                headers=headers,
                query=query,
                params=found[1],
                body=TypedData(bytes=body),
            )
            if self.gate is None:
                return await self._call(function, request, headers)
            async with self.gate:
                return await self._call(function, request, headers)
        except BodyTooLarge:
            return 413, [(b"connection", b"close")], b""
        finally:
            self.outstanding -= 1

    async def _elsewhere(self, scope: Scope, headers: dict[str, str], receive: Receive) -> tuple[int, Headers, bytes]:
        """Paths that no function answers: the home page, the admin routes, nothing."""
        path: str = scope["path"]
        if path == "/" and scope["method"] in {"GET", "HEAD"}:
            return (200, [(b"content-type", b"text/html")], HOME_PAGE) if self.homepage else (204, [], b"")
        if not path.lower().startswith("/admin/"):
            return 404, [], b""
        query = _query(scope["query_string"])
        is_ping = path.lower().rstrip("/") == "/admin/host/ping"
        if self.keyring is not None and not is_ping and not self.keyring.allows("admin", "", headers, query):
            return 401, [], b""
        try:
            body = await self._body(headers, receive)
        except BodyTooLarge:
            return 413, [(b"connection", b"close")], b""
        question: dict[str, object] = {"method": scope["method"], "path": path}
        reply = await self.admin(Payload(question, [body]))
        status = reply.body["status"]
        answer: Headers = [(b"content-type", b"application/json; charset=utf-8")] if reply.blobs else []
        return int(str(status)), answer, b"".join(reply.blobs)

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        limit = self.limits.body_bytes
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise BodyTooLarge
        message = await receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            pieces, size = [body], len(body)
            while message.get("more_body"):
                message = await receive()
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > limit:
                    raise BodyTooLarge
            body = b"".join(pieces)
        if message["type"] == "http.disconnect":
            raise ClientGone
        if len(body) > limit:
            raise BodyTooLarge
        return body

    async def _call(
        self, function: HttpFunction, request: RpcHttp, headers: dict[str, str]
    ) -> tuple[int, Headers, bytes]:
        name = function.loaded.name
        invocation_id = str(uuid.uuid4())
        started = time.perf_counter()
        try:
            outcome = await self.app.invoke(
                function.loaded,
                invocation_id,
                [ParameterBinding(name=function.trigger, data=TypedData(http=request))],
                {},
                traceparent=headers.get("traceparent") or _new_traceparent(),
                tracestate=headers.get("tracestate", ""),
            )
            if outcome.error is None and function.outputs and outcome.outputs:
                await self.write_outputs(name, invocation_id, outcome, _trigger_data(request))
        except TimedOut:
            self.on_timeout(name, invocation_id)
            return 500, [], b""
        except Exception:  # the binding failed; the cloud answers 500 and so does this, with the reason in the log
            log.exception("Executed 'Functions.%s' (Failed, Id=%s)", name, invocation_id)
            return 500, [], b""
        if outcome.error is not None:
            log.error(
                "Executed 'Functions.%s' (Failed, Id=%s, Duration=%dms): %s\n%s",
                name,
                invocation_id,
                (time.perf_counter() - started) * 1000,
                outcome.error,
                outcome.stack_trace,
            )
            return 500, [], b""
        if log.isEnabledFor(logging.DEBUG):
            duration = (time.perf_counter() - started) * 1000
            log.debug("Executed 'Functions.%s' (Succeeded, Id=%s, Duration=%dms)", name, invocation_id, duration)
        return _response(outcome.returned)


def _join(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Header names arrive in lower case; repeated ones are joined as .NET prints several values."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        if key in headers:
            headers[key] += ("; " if key == "cookie" else ",") + text
        else:
            headers[key] = text
    return headers


def _query(raw: bytes) -> dict[str, str]:
    if not raw:
        return {}
    query: dict[str, str] = {}
    for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=False):
        query[name] = f"{query[name]},{value}" if name in query else value
    return query


def _url(scope: Scope, headers: dict[str, str]) -> str:
    query: bytes = scope["query_string"]
    host = headers.get("host", "localhost")
    url = f"{SCHEME}://{host}{scope['raw_path'].decode('latin-1')}"
    return f"{url}?{query.decode('latin-1')}" if query else url


def _trigger_data(request: Any) -> dict[str, object]:
    """What an output's path may name: fields of a JSON body, then the query, then the route, the later ones winning."""
    data: dict[str, object] = {}
    try:
        parsed = json.loads(request.body.value or b"null")
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        data.update({name: value for name, value in parsed.items() if isinstance(value, str | int | float)})
    return {**data, **request.query, **request.params}


def _new_traceparent() -> str:
    """A W3C trace context, because the cloud's host always starts a trace."""
    random = os.urandom(24).hex()
    return f"00-{random[:32]}-{random[32:]}-00"


def _response(returned: TypedData | None) -> tuple[int, Headers, bytes]:
    """Status, headers and body of what an HTTP function returned."""
    if returned is None or returned.kind is None:
        return 200, [], b""
    if returned.kind != "http":
        text = returned.value if isinstance(returned.value, bytes) else str(returned.value).encode()
        mime = b"application/json; charset=utf-8" if returned.kind == "json" else b"text/plain; charset=utf-8"
        return 200, [(b"content-type", mime)], text
    answer: Any = returned.value
    headers: Headers = [
        (name.lower().encode("latin-1"), str(value).encode("latin-1", "replace"))
        for name, value in answer.headers.items()
        # The host computes these itself from the body that it sends.
        if name.lower() not in {"content-length", "transfer-encoding"}
    ]
    headers.extend((b"set-cookie", set_cookie(cookie)) for cookie in answer.cookies or ())
    content = answer.body.value if answer.body is not None else None
    if content is None:
        content = b""
    elif isinstance(content, str):
        content = content.encode()
    return int(answer.status_code), headers, bytes(content)
