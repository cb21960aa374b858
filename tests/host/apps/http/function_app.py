"""HTTP functions for the tests."""

import asyncio
import contextvars
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
JSON = "application/json"


def note_begin() -> None:
    """One line per call with its worker's id, so that a test knows when calls are in flight, and where."""
    with Path(os.environ["BEGUN"]).open("a") as file:
        file.write(f"{os.getpid()}\n")


def begun() -> int:
    """Calls that have begun, of both workers."""
    return Path(os.environ["BEGUN"]).read_text().count("\n")


def answer(document: object, status: int = 200) -> func.HttpResponse:
    return func.HttpResponse(json.dumps(document), status_code=status, mimetype=JSON)


@app.route(route="echo")
async def echo(req: func.HttpRequest) -> func.HttpResponse:
    return answer(
        {
            "method": req.method,
            "url": req.url,
            "query": dict(req.params),
            "route": dict(req.route_params),
            "headers": dict(req.headers),
            "body": req.get_body().decode("latin-1"),
            "pid": os.getpid(),
        }
    )


@app.route(route="size")
def size(req: func.HttpRequest) -> func.HttpResponse:
    return answer(len(req.get_body()))


@app.route(route="big/{count:int}", methods=["GET"])
async def big(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(b"x" * int(req.route_params["count"]), mimetype="application/octet-stream")


@app.route(route="items/special", methods=["GET"])
async def item_special(req: func.HttpRequest) -> str:
    return "special"


@app.route(route="items/{id:int}", methods=["GET"])
async def item_by_number(req: func.HttpRequest) -> str:
    return f"number {req.route_params['id']}"


@app.route(route="items/{name}", methods=["GET"])
async def item_by_name(req: func.HttpRequest) -> str:
    return f"name {req.route_params['name']}"


@app.route(route="items/{name}", methods=["DELETE"])
async def item_delete(req: func.HttpRequest) -> str:
    return f"deleted {req.route_params['name']}"


@app.route(route="optional/{word:alpha?}", methods=["GET"])
async def optional(req: func.HttpRequest) -> func.HttpResponse:
    return answer(dict(req.route_params))


@app.route(route="rest/{*path}", methods=["GET"])
async def rest(req: func.HttpRequest) -> func.HttpResponse:
    return answer(dict(req.route_params))


@app.route(route="cookies", methods=["GET"])
async def cookies(req: func.HttpRequest) -> func.HttpResponse:
    response = func.HttpResponse("ok")
    response.headers.add("Set-Cookie", "first=1; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=Lax")
    response.headers.add("Set-Cookie", "second=2; Domain=example.org; Expires=Wed, 01 Jan 2031 00:00:00 GMT")
    return response


@app.route(route="status/{code:int}", methods=["GET"])
async def status(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(
        b"" if req.route_params["code"] in {"204", "304"} else b"body", status_code=int(req.route_params["code"])
    )


@app.route(route="boom", methods=["GET"])
def boom(req: func.HttpRequest) -> str:
    raise ValueError("on purpose")


@app.route(route="cancelled", methods=["GET"])
async def cancelled(req: func.HttpRequest) -> str:
    raise asyncio.CancelledError


@app.route(route="exits", methods=["GET"])
async def exits(req: func.HttpRequest) -> str:
    sys.exit(3)


@app.route(route="nothing", methods=["GET"])
async def nothing(req: func.HttpRequest) -> str:
    return None  # type: ignore[return-value]


@app.route(route="text", methods=["GET", "HEAD"])
async def text(req: func.HttpRequest) -> str:
    return "plain text"


@app.route(route="sleep/{ms:int}", methods=["GET"])
async def sleep(req: func.HttpRequest) -> func.HttpResponse:
    note_begin()
    await asyncio.sleep(int(req.route_params["ms"]) / 1000)
    return answer(os.getpid())


@app.route(route="meet/{count:int}", methods=["GET"])
async def meet(req: func.HttpRequest) -> func.HttpResponse:
    """Wait until so many calls have begun; says whether they have."""
    note_begin()
    deadline_s = time.monotonic() + 7
    while begun() < int(req.route_params["count"]) and time.monotonic() < deadline_s:  # noqa: ASYNC110  (another process begins)
        await asyncio.sleep(0.02)
    return answer(begun() >= int(req.route_params["count"]))


inside: set[int] = set()
counts: list[int] = []


@app.route(route="crowd/{count:int}", methods=["GET"])
def crowd(req: func.HttpRequest) -> func.HttpResponse:
    """Stay until so many calls were in this worker at once, and a moment longer; says what the most was."""
    inside.add(threading.get_ident())
    counts.append(len(inside))
    deadline_s = time.monotonic() + 6
    while max(counts) < int(req.route_params["count"]) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    time.sleep(0.3)
    inside.discard(threading.get_ident())
    return answer(max(counts))


@app.route(route="hog", methods=["GET"])
async def hog(req: func.HttpRequest) -> func.HttpResponse:
    """Block the event loop until a file says that it is enough."""
    enough = Path(os.environ["BEGUN"]).with_name("enough")
    note_begin()
    deadline_s = time.monotonic() + 7
    while not enough.exists() and time.monotonic() < deadline_s:
        time.sleep(0.02)  # noqa: ASYNC251  (the mistake is the point: it stops the worker)
    return answer(os.getpid())


@app.route(route="logs", methods=["GET"])
async def logs(req: func.HttpRequest, context: func.Context) -> str:
    logging.getLogger("app").warning("said by async")
    return context.invocation_id


@app.route(route="logs-sync", methods=["GET"])
def logs_sync(req: func.HttpRequest, context: func.Context) -> str:
    logging.getLogger("app").warning("said by sync")
    return context.invocation_id


@app.route(route="trace", methods=["GET"])
async def trace(req: func.HttpRequest, context: func.Context) -> str:
    return context.trace_context.trace_parent


@app.route(route="env", methods=["GET"])
async def env(req: func.HttpRequest) -> func.HttpResponse:
    return answer({"env": dict(os.environ), "cwd": str(Path.cwd()), "path0": sys.path[0], "tz": time.tzname[0]})


@app.route(route="context", methods=["GET"])
async def context_is_clean(req: func.HttpRequest) -> func.HttpResponse:
    seen = MARK.get(None)
    MARK.set("dirty")
    return answer(seen)


MARK: contextvars.ContextVar[str | None] = contextvars.ContextVar("mark")


@app.route(route="level-function", methods=["GET"], auth_level=func.AuthLevel.FUNCTION)
async def level_function(req: func.HttpRequest) -> str:
    return "function"


@app.route(route="level-admin", methods=["GET"], auth_level=func.AuthLevel.ADMIN)
async def level_admin(req: func.HttpRequest) -> str:
    return "admin"
