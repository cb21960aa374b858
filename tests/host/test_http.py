"""Requests and responses as the cloud's host treats them, on real host processes."""

from __future__ import annotations

import concurrent.futures
import http.client
import os
import re
import socket
from collections import Counter
from pathlib import Path

import pytest

from tests.host.conftest import StartHost
from tests.host.hosting import Answer, HostProcess, kill, request, until


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to which each call of `sleep` adds its worker's process id when it begins."""
    return tmp_path_factory.mktemp("http") / "begun"


@pytest.fixture(scope="module")
def started(new_host: StartHost, begun: Path) -> HostProcess:
    settings = {
        "BEGUN": str(begun),
        "FUNCTIONS_WORKER_PROCESS_COUNT": "2",
        "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT": "200000",
        "PYTHON_THREADPOOL_THREAD_COUNT": "4",
        "WEBSITE_INSTANCE_ID": "must not be seen",
        "CONTAINER_NAME": "must not be seen",
        "SECTION:KEY": "colon",
    }
    return new_host("http", settings, cors="https://portal.example").start()


@pytest.fixture
def host(started: HostProcess) -> HostProcess:
    """The host of this file with both workers up, whatever another test has done to one."""
    until(lambda: started.status().get("state") == "Running", "all workers up")
    return started


def test_request_arrives_as_in_the_cloud(host: HostProcess) -> None:
    answer = host.post("/api/echo?a=1&b=x%20y&a=2&empty=", b"\x00\xffbytes", X_Mixed_Case="v")
    seen = answer.json()
    assert seen["method"] == "POST"
    assert seen["query"] == {"a": "1,2", "b": "x y"}  # repeated keys joined, keys without a value dropped
    assert seen["body"] == "\x00\xffbytes"
    assert seen["headers"]["x-mixed-case"] == "v"
    assert seen["url"] == f"http://127.0.0.1:{host.port}/api/echo?a=1&b=x%20y&a=2&empty="


def test_repeated_request_headers_are_joined(host: HostProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", host.port)
    connection.putrequest("GET", "/api/echo")
    connection.putheader("X-Many", "one")
    connection.putheader("x-many", "two")
    connection.endheaders()
    response = connection.getresponse()
    assert b'"x-many": "one,two"' in response.read()
    connection.close()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/items/special", "special"),
        ("/api/ITEMS/Special", "special"),
        ("/api/items/17", "number 17"),
        ("/api/items/seventeen", "name seventeen"),
        ("/api/items/99999999999", "name 99999999999"),
        ("/api/items/a%20b", "name a b"),
        ("/api/items/a%2Fb", "name a%2Fb"),
    ],
)
def test_the_more_specific_route_wins(host: HostProcess, path: str, expected: str) -> None:
    assert host.get(path).body.decode() == expected


def test_method_selects_among_equal_routes(host: HostProcess) -> None:
    assert request(host.port, "DELETE", "/api/items/x").body == b"deleted x"


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/api/items/x"), ("GET", "/api/none"), ("GET", "/items/x"), ("GET", "/api/optional/1x"), ("GET", "/api")],
)
def test_no_route_or_method_is_404(host: HostProcess, method: str, path: str) -> None:
    answer = request(host.port, method, path)
    assert (answer.status, answer.body) == (404, b"")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/optional", {}),
        ("/api/optional/word", {"word": "word"}),
        ("/api/rest/a/b%20c/d", {"path": "a/b c/d"}),
        ("/api/rest", {}),
    ],
)
def test_optional_and_catch_all_parameters(host: HostProcess, path: str, expected: dict[str, str]) -> None:
    assert host.get(path).json() == expected


def test_all_methods_when_none_is_listed(host: HostProcess) -> None:
    for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS"):
        assert request(host.port, method, "/api/echo").json()["method"] == method


def test_head_has_no_body(host: HostProcess) -> None:
    answer = request(host.port, "HEAD", "/api/text")
    assert (answer.status, answer.body, answer.header("content-length")) == (200, b"", "10")


def test_string_return_is_plain_text(host: HostProcess) -> None:
    answer = host.get("/api/text")
    assert (answer.body, answer.header("content-type")) == (b"plain text", "text/plain; charset=utf-8")


def test_cookies_are_emitted_again(host: HostProcess) -> None:
    assert host.get("/api/cookies").all("set-cookie") == [
        "first=1; max-age=60; path=/; secure; samesite=lax; httponly",
        "second=2; expires=Wed, 01 Jan 2031 00:00:00 GMT; domain=example.org",
    ]


@pytest.mark.parametrize("code", [200, 201, 204, 302, 304, 404, 418, 503])
def test_status_codes_pass(host: HostProcess, code: int) -> None:
    assert host.get(f"/api/status/{code}").status == code


@pytest.mark.parametrize("path", ["boom", "cancelled", "exits", "nothing"])
def test_failure_is_500_with_an_empty_body(host: HostProcess, path: str) -> None:
    answer = host.get(f"/api/{path}")
    assert (answer.status, answer.body) == (500, b"")
    assert host.get("/api/text").status == 200


def test_failure_is_logged_with_its_stack(host: HostProcess) -> None:
    host.get("/api/boom")
    until(lambda: "ValueError: on purpose" in host.log() and 'raise ValueError("on purpose")' in host.log(), "log")


def test_body_over_the_limit_is_413(host: HostProcess) -> None:
    assert host.post("/api/size", b"x" * 200_000).json() == 200_000
    assert host.post("/api/size", b"x" * 200_001).status == 413


def test_chunked_request_body(host: HostProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", host.port)
    connection.request("POST", "/api/size", iter([b"a" * 70_000, b"b" * 70_000]), encode_chunked=True)
    assert connection.getresponse().read() == b"140000"
    connection.request("POST", "/api/size", iter([b"a" * 150_000, b"b" * 70_000]), encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_big_response(host: HostProcess) -> None:
    assert len(host.get("/api/big/8000000").body) == 8_000_000


def test_keep_alive_serves_many_requests_on_a_connection(host: HostProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", host.port)
    pids = set()
    for _ in range(50):
        connection.request("GET", "/api/echo")
        response = connection.getresponse()
        pids.add(response.read().split(b'"pid": ')[1])
    assert len(pids) == 1
    connection.close()


def test_pipelined_requests_are_answered_in_order(host: HostProcess) -> None:
    with socket.create_connection(("127.0.0.1", host.port)) as raw:
        one = b"GET /api/items/%d HTTP/1.1\r\nHost: x\r\n\r\n"
        raw.sendall(b"".join(one % number for number in range(3)))
        raw.settimeout(60)
        text = b""
        while text.count(b"number") < 3:
            text += raw.recv(65536)
    assert re.findall(rb"number (\d)", text) == [b"0", b"1", b"2"]


def test_garbage_is_400_and_hurts_nobody(host: HostProcess) -> None:
    with socket.create_connection(("127.0.0.1", host.port)) as raw:
        raw.sendall(b"\x16\x03\x01 not http\r\n\r\n")
        raw.settimeout(60)
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
    assert host.get("/api/text").status == 200


def test_async_functions_overlap(host: HostProcess, begun: Path) -> None:
    begun.unlink(missing_ok=True)
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert list(pool.map(lambda _: host.get("/api/meet/12").json(), range(12))) == [True] * 12


def test_sync_functions_run_in_the_pool(host: HostProcess) -> None:
    # 2 workers with 4 threads each: of 16 calls one of them gets 8 at least, and runs 4 of these at once.
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert max(pool.map(lambda _: host.get("/api/crowd/4").json(), range(16))) == 4


def test_connections_reach_both_workers(host: HostProcess) -> None:
    seen: set[int] = set()

    def both() -> bool:  # again, should one of them get no processor meanwhile
        seen.update(pool.map(lambda _: host.get("/api/sleep/50").json(), range(60)))
        return len(seen) == 2

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        until(both, "answers of both workers")
    assert seen == set(host.workers())


def test_a_blocked_worker_is_passed_over(host: HostProcess, begun: Path) -> None:
    for file in (begun, begun.with_name("enough")):
        file.unlink(missing_ok=True)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(host.get, "/api/hog")
        until(lambda: begun.exists() and begun.read_text(), "a worker is blocked", pause_s=0.01)
        seen = {host.get("/api/sleep/0").json() for _ in range(20)}
        assert not blocked.done(), "all were answered meanwhile"
        begun.with_name("enough").touch()
        assert len(seen) == 1
        assert blocked.result().json() not in seen


def test_log_lines_carry_the_invocation_id(host: HostProcess) -> None:
    for path, words in (("logs", "said by async"), ("logs-sync", "said by sync")):
        invocation = host.get(f"/api/{path}").body.decode()
        until(lambda: re.search(f"{words}.*invocation={invocation}", host.log()), f"{words} with its id")  # noqa: B023


def test_trace_context_is_passed_on_or_begun(host: HostProcess) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert host.get("/api/trace", traceparent=given).body.decode() == given
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", host.get("/api/trace").body.decode())


def test_context_variables_do_not_leak_between_requests(host: HostProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", host.port)
    for _ in range(2):
        connection.request("GET", "/api/context")
        assert connection.getresponse().read() == b"null"
    connection.close()


def test_environment_is_built_exactly(host: HostProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = host.get("/api/env").json()
    env = seen["env"]
    assert "CONTAINER_NAME" not in env
    assert "WEBSITE_INSTANCE_ID" not in env
    assert env["FUNCTIONS_WORKER_RUNTIME"] == "python"
    assert env["SECTION__KEY"] == "colon"
    assert seen["cwd"] == seen["path0"] == str(host.app_dir)
    assert seen["tz"] == "UTC"
    foreign = set(os.environ) - {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "TZ", "LC_CTYPE"}
    assert not foreign & set(env)


def test_custom_headers_are_added(host: HostProcess) -> None:
    assert host.get("/api/text").header("x-content-type-options") == "nosniff"


def test_cors(host: HostProcess) -> None:
    preflight = request(
        host.port,
        "OPTIONS",
        "/api/echo",
        headers={
            "Origin": "https://portal.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-one",
        },
    )
    assert preflight.status == 204
    assert preflight.header("access-control-allow-origin") == "https://portal.example"
    assert preflight.header("access-control-allow-methods") == "POST"
    assert preflight.header("access-control-allow-headers") == "x-one"
    allowed = host.get("/api/text", Origin="https://portal.example")
    assert allowed.header("access-control-allow-origin") == "https://portal.example"
    refused = host.get("/api/text", Origin="https://other.example")
    assert (refused.status, refused.header("access-control-allow-origin")) == (200, None)


def test_home_page(host: HostProcess) -> None:
    assert host.get("/").status == 200


def test_function_over_its_timeout_is_500_and_costs_the_worker(host: HostProcess) -> None:
    before = set(host.workers())
    assert host.get("/api/sleep/20000").status == 500
    until(lambda: len(set(host.workers()) - before) == 1 and len(host.workers()) == 2, "a new worker")
    assert "a function ran over functionTimeout" in host.log()


def test_killed_worker_drops_only_its_own_requests(host: HostProcess, begun: Path) -> None:
    victim = host.workers()[0]
    begun.unlink(missing_ok=True)
    calls: list[concurrent.futures.Future[Answer]] = []

    def call() -> None:
        calls.append(pool.submit(request, host.port, "GET", "/api/sleep/2000"))

    def all_begun_in_both() -> bool:
        where = begun.read_text().splitlines() if begun.exists() else []
        if len(where) < len(calls):
            return False
        if len(set(where)) < 2:  # one of them got no processor while the other took them all
            call()
        return len(set(where)) == 2

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        for _ in range(16):
            call()
        until(all_begun_in_both, "calls in flight in both workers", pause_s=0.01)
        kill(victim)
        for _ in range(20):
            assert host.get("/api/text").status == 200
    outcomes = Counter("lost" if call.exception() else "served" for call in calls)
    assert outcomes["served"] > 0
    until(lambda: victim not in host.workers() and host.status().get("state") == "Running", "replaced")
    assert f"(pid {victim}) died: killed by SIGKILL" in host.log()
