"""A loopback server that behaves as a deployment's endpoints are documented to: publish, status, functions, health."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

APP_ID = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Web/sites/func-score"


@dataclass
class Reply:
    """One answer.

    Attributes:
        status: HTTP status; 0 closes the connection without an answer.
        body: Sent as JSON, or as it is if it is bytes.
        headers: Beside the usual ones.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class AzureServer:
    """What is answered, in order; the last answer of a list stays.

    Attributes:
        publish, status, functions, live, ready, versions, secret, token: Answers by route.
        seen: Requests as (method, path, headers, body).
    """

    publish: list[Reply] = field(default_factory=lambda: [Reply(202, "d-1")])
    status: list[Reply] = field(default_factory=lambda: [Reply(202, {"status": 1}), Reply(200, {"status": 4})])
    functions: list[Reply] = field(default_factory=lambda: [listing("health_live", "health_ready")])
    live: list[Reply] = field(default_factory=lambda: [Reply(200, {"status": "live"})])
    ready: list[Reply] = field(default_factory=lambda: [Reply(200, {"status": "ready"})])
    versions: list[Reply] = field(default_factory=lambda: [Reply(404, {"error": {"code": "SecretNotFound"}})])
    secret: list[Reply] = field(default_factory=lambda: [Reply(200, {"id": "x"})])
    token: list[Reply] = field(default_factory=lambda: [Reply(200, {"access_token": "t", "expires_on": "0"})])
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, path: str) -> Reply:
        route = path.partition("?")[0]
        answers = {
            "/api/publish": self.publish,
            f"{APP_ID}/functions": self.functions,
            "/api/health/live": self.live,
            "/api/health/ready": self.ready,
            "/secrets/surrogate-keys/versions": self.versions,
            "/secrets/surrogate-keys": self.secret,
            "/msi/token": self.token,
        }.get(route, self.status if route.startswith("/api/deployments/") else [Reply(404)])
        del method
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def requests(self, prefix: str) -> list[tuple[str, str, dict[str, str], bytes]]:
        return [request for request in self.seen if request[1].startswith(prefix)]


def listing(*names: str) -> Reply:
    """The list of functions as Azure Resource Manager gives it."""
    return Reply(200, {"value": [{"name": f"func-score/{name}", "properties": {"name": name}} for name in names]})


@contextmanager
def serving(azure: AzureServer) -> Iterator[AzureServer]:
    """Serve on a free port of the loopback address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version: ClassVar[str] = "HTTP/1.1"  # type: ignore[misc]

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            azure.seen.append((self.command, self.path, headers, body))
            reply = azure.answer(self.command, self.path)
            if reply.status == 0:
                self.close_connection = True
                return
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {**reply.headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815 - the library's names

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        azure.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield azure
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
