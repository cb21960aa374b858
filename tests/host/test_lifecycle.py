"""Draining, dying, reloading, isolation and limits of host processes."""

from __future__ import annotations

import concurrent.futures
import importlib
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import azure.functions
import markupsafe
import pytest
import werkzeug

from tests.host.conftest import StartHost
from tests.host.hosting import HostProcess, alive, kill, request, until, write_app

HEAD = "import asyncio, importlib, json, os, sys, time\nimport azure.functions as func\n"
# Each call that has begun is a letter in a file beside the app, so that a test knows when calls are in flight.
HEAD += "def begun():\n    with open('begun', 'a') as file:\n        file.write('x')\n"
APP = HEAD + "app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)\n"
HELLO = """
@app.route(route="hello")
async def hello(req: func.HttpRequest) -> str:
    return {text!r}

@app.route(route="sleep/{{ms:int}}")
async def sleep(req: func.HttpRequest) -> str:
    begun()
    await asyncio.sleep(int(req.route_params["ms"]) / 1000)
    return "slept"
"""

BLOCKS = """
@app.route(route="block")
{kind} block(req: func.HttpRequest) -> str:
    begun()
    time.sleep(60)
    return ""
"""

WAITS = """
inside = 0

@app.route(route="wait")
async def wait(req: func.HttpRequest) -> str:
    global inside
    begun()
    inside += 1
    most = inside
    while not os.path.exists("enough"):
        most = max(most, inside)
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    most = max(most, inside)
    inside -= 1
    return str(most)
"""


def hello(text: str) -> str:
    return APP + HELLO.format(text=text)


def in_flight(host: HostProcess, count: int) -> None:
    """Wait until so many calls have begun."""
    file = host.app_dir / "begun"
    until(lambda: file.exists() and len(file.read_text()) >= count, f"{count} calls in flight")


def begin(host: HostProcess, path: str, pool: concurrent.futures.Executor) -> concurrent.futures.Future[Any]:
    """A request in flight."""
    return pool.submit(request, host.port, "GET", path)


# Stopping


def test_stop_lets_requests_in_flight_end(new_host: StartHost, tmp_path: Path) -> None:
    host = new_host(write_app(tmp_path / "app", hello("one")), {"FUNCTIONS_WORKER_PROCESS_COUNT": "2"}).start()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        calls = [begin(host, "/api/sleep/1500", pool) for _ in range(4)]
        in_flight(host, 4)
        assert host.stop() == 0
        assert [call.result().body for call in calls] == [b"slept"] * 4
    with pytest.raises(ConnectionRefusedError):
        host.get("/api/hello")


def test_stop_cuts_off_what_outlives_the_grace_period(new_host: StartHost, tmp_path: Path) -> None:
    code = APP + BLOCKS.format(kind="def")
    host = new_host(write_app(tmp_path / "app", code, {"functionTimeout": "00:00:02"}), {}).start()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        call = begin(host, "/api/block", pool)
        in_flight(host, 1)
        assert host.stop(25) == 0, "2 s and not the usual 30"
        outcome = call.exception() or call.result().status
    assert outcome == 500 or isinstance(outcome, ConnectionError)


# Dying


def test_workers_die_with_their_host_and_the_port_is_free_at_once(new_host: StartHost, tmp_path: Path) -> None:
    host = new_host(write_app(tmp_path / "app", hello("one")), {"FUNCTIONS_WORKER_PROCESS_COUNT": "2"}).start()
    workers = host.workers()
    host.kill()
    assert not any(alive(pid) for pid in workers)
    assert host.start().get("/api/hello").body == b"one"


def test_worker_that_keeps_dying_is_replaced_with_growing_pauses(new_host: StartHost, tmp_path: Path) -> None:
    code = APP + "@app.route(route='die')\nasync def die(req: func.HttpRequest) -> str:\n    os._exit(7)\n"
    host = new_host(write_app(tmp_path / "app", code), {}).start()
    for _ in range(2):
        before = host.workers()
        with pytest.raises(ConnectionError):
            host.get("/api/die")
        until(lambda: host.status().get("state") == "Running" and host.workers() != before, "a new worker")  # noqa: B023
    assert host.log().count("died: exit code 7; a new one follows") == 2


def test_blocked_event_loop_over_the_timeout_ends_the_worker(new_host: StartHost, tmp_path: Path) -> None:
    code = APP + BLOCKS.format(kind="async def")
    host = new_host(write_app(tmp_path / "app", code, {"functionTimeout": "00:00:01"}), {}).start()
    before = host.workers()
    with pytest.raises(ConnectionError):
        host.get("/api/block")
    until(lambda: host.status().get("state") == "Running" and host.workers() != before, "a new worker")
    assert "the event loop is blocked by one of: block" in host.log()


def test_stop_does_not_wait_for_a_blocked_event_loop(new_host: StartHost, tmp_path: Path) -> None:
    code = APP + BLOCKS.format(kind="async def")
    host = new_host(write_app(tmp_path / "app", code, {"functionTimeout": "00:00:02"}), {}).start()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        call = begin(host, "/api/block", pool)
        in_flight(host, 1)
        assert host.stop(20) == 0
        assert isinstance(call.exception(), ConnectionError)


def test_state_is_running_only_with_all_workers(new_host: StartHost, tmp_path: Path) -> None:
    code = hello("one").replace("app = ", "while os.path.exists('held'):\n    time.sleep(0.05)\napp = ", 1)
    host = new_host(write_app(tmp_path / "app", code), {"FUNCTIONS_WORKER_PROCESS_COUNT": "2"}).start()
    (host.app_dir / "held").touch()
    kill(host.workers()[0])
    until(lambda: host.status().get("state") == "Initialized", "not running while a worker is missing")
    (host.app_dir / "held").unlink()
    until(lambda: host.status().get("state") == "Running", "running again")


# Reloading


@pytest.fixture
def watched(new_host: StartHost, tmp_path: Path) -> HostProcess:
    app_dir = write_app(tmp_path / "app", hello("one"))
    settings = {"FUNCTIONS_WORKER_PROCESS_COUNT": "2"}
    return new_host(app_dir, settings, watch=True).start()


def test_change_is_taken_over_without_a_gap(watched: HostProcess) -> None:
    old = watched.workers()
    seen: Counter[bytes] = Counter()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        call = begin(watched, "/api/sleep/4000", pool)
        in_flight(watched, 1)
        seen[watched.get("/api/hello").body] += (
            1  # before, because the change may be faster than the first one after it
        )
        write_app(watched.app_dir, hello("two"))
        deadline = time.monotonic() + 60
        while seen[b"two"] < 5:
            seen[watched.get("/api/hello").body] += 1  # a refused connection would raise
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert call.result().body == b"slept"
    assert set(seen) == {b"one", b"two"}
    until(lambda: not any(alive(pid) for pid in old), "the old workers leave")


def test_broken_change_is_not_taken_over(watched: HostProcess) -> None:
    write_app(watched.app_dir, "this is no python\n")
    until(lambda: "the change was not taken over" in watched.log(), "the refusal")
    assert "SyntaxError" in watched.log()
    assert watched.get("/api/hello").body == b"one"
    write_app(watched.app_dir, hello("mended"))
    until(lambda: watched.get("/api/hello").body == b"mended", "the mended app")


def test_change_of_a_library_beside_the_app_is_taken_over(new_host: StartHost, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    word = library / "word.py"
    word.write_text("WORD = 'first'\n")
    code = (
        f"import sys\nsys.path.append({str(library)!r})\n{APP}import word\n"
        "@app.route(route='hello')\nasync def hello(req: func.HttpRequest) -> str:\n    return word.WORD\n"
    )
    app_dir = write_app(tmp_path / "app", code)
    host = new_host(app_dir, {}, watch=True, watch_also=[str(library)]).start()
    assert host.get("/api/hello").body == b"first"
    (app_dir / "local.settings.json").write_text("{}")  # not read, as settings were given, so no reason to reload
    word.write_text("WORD = 'other'\n")
    until(lambda: host.get("/api/hello").body == b"other", "the changed library")
    assert "reloading: word.py changed" in host.log()
    assert "local.settings.json" not in host.log()


def test_changed_settings_reach_the_app(watched: HostProcess) -> None:
    code = (
        APP
        + "@app.route(route='hello')\nasync def hello(req: func.HttpRequest) -> str:\n    return os.environ['WORD']\n"
    )
    watched.settings = {"WORD": "first"}
    watched.write_config()
    write_app(watched.app_dir, code)
    until(lambda: watched.get("/api/hello").body == b"first", "the first word")
    watched.settings = {"WORD": "second"}
    watched.write_config()
    until(lambda: watched.get("/api/hello").body == b"second", "the second word")
    assert len(watched.workers()) == 1, "the number of workers follows the settings"


# Isolation


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A deployment package's site-packages with exactly what the worker library needs."""
    target = tmp_path / "site-packages"
    (target / "azure").mkdir(parents=True)
    (target / "azure" / "functions").symlink_to(Path(azure.functions.__file__).parent)
    for module in (importlib.import_module("azure_functions_runtime"), werkzeug, markupsafe):
        folder = Path(str(module.__file__)).parent
        (target / folder.name).symlink_to(folder)
    return target


def test_package_sees_nothing_of_the_hosts_environment(new_host: StartHost, tmp_path: Path, package: Path) -> None:
    names = [
        "pydantic",
        "aiohttp",
        "azure.eventhub",
        "azure.storage.blob",
        "twin.broker",
        "twin.services",
        "shared",
        "pytest",
    ]
    code = APP + (
        "def found(name):\n"
        "    try:\n        importlib.import_module(name)\n"
        "    except ImportError:\n        return False\n"
        "    return True\n"
        "@app.route(route='imports')\n"
        "def imports(req: func.HttpRequest) -> str:\n"
        f"    return json.dumps({{'found': [n for n in {names} if found(n)], 'path': sys.path,"
        " 'runtime': importlib.import_module('azure_functions_runtime').__file__, 'flags': sys.flags.isolated})\n"
    )
    host = new_host(write_app(tmp_path / "app", code), {}, site_packages=str(package)).start()
    seen = json.loads(host.get("/api/imports").body)
    assert seen["found"] == []
    assert seen["path"][:2] == [str(tmp_path / "app"), str(package)]
    assert not any("site-packages" in entry for entry in seen["path"][2:])
    assert seen["runtime"].startswith(str(package))
    assert seen["flags"] == 1


@pytest.mark.parametrize("module", ["pydantic", "twin.broker", "azure.eventhub"])
def test_package_that_lacks_a_module_does_not_start(
    new_host: StartHost, tmp_path: Path, package: Path, module: str
) -> None:
    app_dir = write_app(tmp_path / "app", f"import {module}\n" + hello("never"))
    code, log = new_host(app_dir, {}, site_packages=str(package)).fails()
    assert code == 4
    assert "ModuleNotFoundError" in log
    assert f"No module named '{module}'" in log


def test_package_without_the_runtime_is_named(new_host: StartHost, tmp_path: Path, package: Path) -> None:
    (package / "azure_functions_runtime").unlink()
    app_dir = write_app(tmp_path / "app", hello("never"))
    code, log = new_host(app_dir, {}, site_packages=str(package)).fails()
    assert code == 4
    assert "the app's packages lack azure-functions-runtime" in log


# Limits


def test_requests_over_the_outstanding_limit_are_429(new_host: StartHost, tmp_path: Path) -> None:
    limits = {"extensions": {"http": {"maxOutstandingRequests": 3, "maxConcurrentRequests": 1}}}
    host = new_host(write_app(tmp_path / "app", hello("one") + WAITS, limits), {}).start()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        calls = [begin(host, "/api/wait", pool) for _ in range(8)]
        until(lambda: sum(call.done() for call in calls) == 5, "those over the limit are told at once")
        assert {call.result().status for call in calls if call.done()} == {429}
        in_flight(host, 1)
        (host.app_dir / "enough").touch()
        answers = [call.result() for call in calls]
    assert [answer.body for answer in answers if answer.status == 200] == [b"1"] * 3, "one executes at a time"
    assert host.get("/api/hello").status == 200


def test_route_prefix(new_host: StartHost, tmp_path: Path) -> None:
    app_dir = write_app(tmp_path / "app", hello("one"), {"extensions": {"http": {"routePrefix": ""}}})
    host = new_host(app_dir, {}).start()
    assert host.get("/hello").body == b"one"
    assert host.get("/api/hello").status == 404


def test_no_route_hides_the_admin_routes(new_host: StartHost, tmp_path: Path) -> None:
    code = APP + "@app.route(route='{*all}')\nasync def every(req: func.HttpRequest) -> str:\n    return 'caught'\n"
    app_dir = write_app(tmp_path / "app", code, {"extensions": {"http": {"routePrefix": ""}}})
    host = new_host(app_dir, {}).start()
    assert host.get("/any/thing").body == b"caught"
    assert host.status()["state"] == "Running"


def test_json_log_lines(new_host: StartHost, tmp_path: Path) -> None:
    host = new_host(write_app(tmp_path / "app", hello("one")), {}, log_format="json").start()
    entry = next(json.loads(line) for line in host.log().splitlines() if '"listening on' in line)
    assert entry["level"] == "INFO"
    assert entry["process"] == "host"


def test_stop_during_the_import_is_clean(new_host: StartHost, tmp_path: Path) -> None:
    code = APP + "import pathlib\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(30)\n"
    app_dir = write_app(tmp_path / "app", code)
    host = new_host(app_dir, {}).spawn()
    until(lambda: (app_dir / "pid").exists() and (app_dir / "pid").read_text(), "the import begins")
    assert host.stop(25) == 0, "the import would take half a minute"
    assert not alive(int((app_dir / "pid").read_text()))
