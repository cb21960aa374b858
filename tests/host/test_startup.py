"""What a host refuses at start, by name, and with which exit code."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.host.conftest import StartHost
from tests.host.hosting import HostProcess, alive, write_app
from twin.host.bindings import parse_functions
from twin.host.config import load_config
from twin.host.errors import BrokenApp, InvalidConfig
from twin.host.hostjson import HostJson, parse_hostjson
from twin.host.routing import BadTemplate, parse_route
from twin.host.settings import MissingSetting, resolve

EMPTY = "import azure.functions as func\napp = func.FunctionApp()\n"
HTTP = EMPTY + "@app.route()\ndef hello(req: func.HttpRequest) -> str:\n    return 'hello'\n"


@pytest.fixture
def app_dir(tmp_path: Path) -> Path:
    return write_app(tmp_path / "app", HTTP)


def write_config(directory: Path, document: object, mode: int = 0o600) -> Path:
    path = directory / "config.json"
    path.write_text(json.dumps(document))
    path.chmod(mode)
    return path


# Configuration: exit 2.


def test_every_problem_of_the_configuration_is_named(tmp_path: Path, app_dir: Path) -> None:
    path = write_config(
        tmp_path,
        {
            "app_dir": str(app_dir),
            "settings": {"GOOD": "x", "NUMBER": 1},
            "host": "0.0.0.0",
            "port": 70000,
            "watch": "yes",
            "enforce_keys": True,
            "log_level": "LOUD",
            "colour": "red",
        },
        mode=0o644,
    )
    with pytest.raises(InvalidConfig) as caught:
        load_config(path)
    text = "\n".join(caught.value.problems)
    for words in (
        "chmod 600",
        "colour: is not a field",
        "settings.NUMBER: must be a string, not int",
        "host: must be a loopback address",
        "port: must be a whole number from 0 to 65535",
        "watch: must be true or false",
        "keys_file: is required when enforce_keys",
        "state_dir: is required",
        "log_level: must be one of",
    ):
        assert words in text
    assert len(caught.value.problems) == 9


def test_missing_app_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    path = write_config(tmp_path, {"app_dir": str(tmp_path / "empty"), "settings": {}, "state_dir": "x"})
    with pytest.raises(InvalidConfig, match=r"no host\.json.*no function_app\.py"):
        load_config(path)


def test_local_settings_are_honoured_without_settings(tmp_path: Path, app_dir: Path) -> None:
    local = {
        "IsEncrypted": False,
        "Values": {"A": "1"},
        "Host": {"LocalHttpPort": 7099, "CORS": "https://a, https://b"},
    }
    (app_dir / "local.settings.json").write_text(json.dumps(local))
    config = load_config(write_config(tmp_path, {"app_dir": str(app_dir), "state_dir": str(tmp_path)}))
    assert dict(config.settings) == {"A": "1"}
    assert config.port == 7099
    assert config.cors is not None
    assert config.cors.origins == {"https://a", "https://b"}
    explicit = write_config(tmp_path, {"app_dir": str(app_dir), "state_dir": str(tmp_path), "settings": {"B": "2"}})
    assert dict(load_config(explicit).settings) == {"B": "2"}


def test_broken_local_settings_are_named(tmp_path: Path, app_dir: Path) -> None:
    (app_dir / "local.settings.json").write_text(json.dumps({"IsEncrypted": True, "Values": {"A": 1}}))
    with pytest.raises(InvalidConfig, match=r"IsEncrypted.*Values\.A"):
        load_config(write_config(tmp_path, {"app_dir": str(app_dir), "state_dir": str(tmp_path)}))


def test_wrong_configuration_exits_2(new_host: StartHost, app_dir: Path) -> None:
    code, log = new_host(app_dir, {}, log_level="LOUD").fails()
    assert code == 2
    assert "log_level: must be one of" in log


# The port: exit 3.


def test_taken_port_exits_3_and_is_named(new_host: StartHost, app_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        host = new_host(app_dir, {})
        host.port = taken.getsockname()[1]
        code, log = host.fails()
    assert code == 3
    assert f"port {host.port} on 127.0.0.1 is taken" in log


# The app: exit 4.


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import does_not_exist\n", "ModuleNotFoundError: No module named 'does_not_exist'"),
        ("raise RuntimeError('at import')\n", "RuntimeError: at import"),
        ("import sys\nsys.exit(5)\n", "SystemExit: 5"),
        ("import os\nos._exit(9)\n", "a worker ended while it imported the app: exit code 9"),
        ("x = 1\n", "Could not find top level function app instances"),
        (
            EMPTY
            + "@app.queue_trigger('m', queue_name='q', connection='C')\ndef f(m: func.QueueMessage) -> None: ...\n",
            "function 'f': binding 'm' of type 'queueTrigger' (direction IN) is not supported by this host",
        ),
        (
            EMPTY + "@app.timer_trigger('t', schedule='61 * * * * *')\ndef f(t: func.TimerRequest) -> None: ...\n",
            "function 'f': schedule: second 61 is outside 0 to 59",
        ),
        (
            EMPTY + "@app.timer_trigger('t', schedule='%NONE%')\ndef f(t: func.TimerRequest) -> None: ...\n",
            "the app setting 'NONE' (as %NONE%) does not exist",
        ),
        (
            EMPTY + "@app.timer_trigger('t', schedule='0 0 0 * * *')\ndef f(t: func.TimerRequest) -> None: ...\n",
            "app setting AzureWebJobsStorage: is required",
        ),
        (
            EMPTY + "@app.route()\n@app.queue_output('q', queue_name='q', connection='BAD')\n"
            "def f(req: func.HttpRequest, q: func.Out[str]) -> str: ...\n",
            "app setting BAD: is no connection string",
        ),
        (
            EMPTY + "@app.route(route='a/{x:colour}')\ndef f(req: func.HttpRequest) -> str: ...\n",
            "route constraint 'colour' is not supported",
        ),
    ],
)
def test_broken_app_exits_4_with_the_reason(new_host: StartHost, tmp_path: Path, code: str, words: str) -> None:
    exit_code, log = new_host(write_app(tmp_path / "app", code), {"BAD": "AccountKey=secret;nonsense"}).fails()
    assert exit_code == 4
    assert "secret" not in log
    assert words in log


def test_import_error_shows_the_stack_of_the_app(new_host: StartHost, tmp_path: Path) -> None:
    app_dir = write_app(tmp_path / "app", "def broken():\n    return {}['missing']\n\nbroken()\n")
    code, log = new_host(app_dir, {}).fails()
    assert code == 4
    assert "return {}['missing']" in log
    assert "KeyError: 'missing'" in log


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"version": "1.0"}, 'version: must be "2.0"'),
        ({"version": "2.0", "customHandler": {}}, "customHandler: custom handlers are not supported"),
        ({"version": "2.0", "extensions": {"durableTask": {}}}, "durableTask: Durable Functions are not supported"),
        ({"version": "2.0", "functionTimeout": "5 min"}, "functionTimeout: '5 min' is not a time span"),
        ({"version": "2.0", "extensions": {"http": {"routePrefx": "x"}}}, "http.routePrefx: is not a setting"),
        ({"version": "2.0", "extensions": {"http": {"maxConcurrentRequests": 0}}}, "must be -1 or positive"),
        ({"version": "2.0", "extensions": {"eventHubs": {"maxEventBatchSize": "9"}}}, "must be a whole number"),
        ({"version": "2.0", "extensions": {"eventHubs": {"minEventBatchSize": 200}}}, "must not be over"),
        ({"version": "2.0", "extensions": {"eventHubs": {"maxWaitTime": "00:11:00"}}}, "from 0 to 600 seconds"),
        ({"version": "2.0", "extensions": {"eventHubs": {"transportType": "amqpWebSockets"}}}, "only amqpTcp"),
        (
            {"version": "2.0", "extensionBundle": {"id": "Other", "version": "[4.0.0, 5.0.0)"}},
            "extensionBundle.id: must be Microsoft.Azure.Functions.ExtensionBundle",
        ),
        (
            {
                "version": "2.0",
                "extensionBundle": {"id": "Microsoft.Azure.Functions.ExtensionBundle", "version": "[3.*, 4.0.0)"},
            },
            "extensionBundle.version",
        ),
    ],
)
def test_host_json_rules(document: dict[str, Any], words: str) -> None:
    with pytest.raises(BrokenApp) as caught:
        parse_hostjson(document)
    assert any(words in problem for problem in caught.value.problems), caught.value.problems


def test_host_json_defaults_are_the_documented_ones() -> None:
    parsed = parse_hostjson({"version": "2.0"})
    assert parsed.http.route_prefix == "api"
    assert parsed.timeout_s == 1800
    hubs = parsed.hubs
    assert (hubs.max_batch, hubs.min_batch, hubs.max_wait_s, hubs.checkpoint_every, hubs.prefetch) == (
        100,
        1,
        60,
        1,
        300,
    )
    assert hubs.start == "fromStart"
    assert parse_hostjson({"version": "2.0", "functionTimeout": "-1"}).timeout_s is None


def test_host_json_is_checked_before_anything_starts(new_host: StartHost, tmp_path: Path) -> None:
    app_dir = write_app(tmp_path / "app", HTTP, {"customHandler": {}})
    code, log = new_host(app_dir, {}).fails()
    assert code == 4
    assert "custom handlers are not supported" in log


def function(*bindings: dict[str, Any], retry: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    return [{"name": "f", "function_id": "id", "bindings": list(bindings), "retry": retry}]


HUB = {"type": "eventHubTrigger", "name": "e", "direction": "IN", "eventHubName": "h", "connection": "EH"}


@pytest.mark.parametrize(
    ("bindings", "settings", "words"),
    [
        ([HUB], {}, "no app setting 'EH'"),
        ([HUB], {"EH": "x"}, "need an extensionBundle"),
        ([{**HUB, "dataType": "STREAM"}], {"EH": "x"}, "dataType 'stream'"),
        ([{**HUB, "cardinality": "SOME"}], {"EH": "x"}, "cardinality 'some'"),
        ([HUB, {"type": "blob", "name": "b", "direction": "IN"}], {"EH": "x"}, "'blob' (direction IN)"),
        ([HUB, {"type": "sendGrid", "name": "s", "direction": "OUT"}], {"EH": "x"}, "'sendGrid' (direction OUT)"),
        ([HUB, HUB], {"EH": "x"}, "exactly one trigger, not 2"),
    ],
)
def test_bindings_are_refused_by_name(bindings: list[dict[str, Any]], settings: dict[str, str], words: str) -> None:
    with pytest.raises(BrokenApp) as caught:
        parse_functions(function(*bindings), settings, HostJson())
    assert words in str(caught.value)


def test_retry_on_http_is_refused() -> None:
    retry = {"max_retry_count": 1, "strategy": "fixed_delay", "delay_interval": 1.0}
    trigger = {"type": "httpTrigger", "name": "req", "direction": "IN"}
    with pytest.raises(BrokenApp, match="retry policies are not supported for HTTP"):
        parse_functions(function(trigger, retry=retry), {}, HostJson())


def test_app_settings_are_resolved_in_bindings() -> None:
    assert resolve("a-%ONE%-%TWO%", {"ONE": "1", "TWO": "2"}) == "a-1-2"
    assert resolve("%A:B%", {"A__B": "nested"}) == "nested"
    with pytest.raises(MissingSetting, match="'THREE'"):
        resolve("%THREE%", {})


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("a-{b}", "mixes text and a parameter"),
        ("{*a}/b", "must be the last segment"),
        ("{a}/{A}", "names a parameter twice"),
        ("{a:range(1)}", "is not supported"),
        ("{1}", "no valid parameter name"),
        ("a//b", "empty segment"),
    ],
)
def test_route_templates_are_refused_by_name(template: str, words: str) -> None:
    with pytest.raises(BadTemplate, match=words):
        parse_route("f", template, None, "api")


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("{x:int}", "12", {"x": "12"}),
        ("{x:int}", "2147483648", None),
        ("{x:long}", "2147483648", {"x": "2147483648"}),
        ("{x:bool}", "True", {"x": "True"}),
        ("{x:guid}", "CD2C1638-1638-72D5-1638-DEADBEEF1638", {"x": "CD2C1638-1638-72D5-1638-DEADBEEF1638"}),
        ("{x:length(2,3)}", "abcd", None),
        ("{x:minlength(2):maxlength(3)}", "abc", {"x": "abc"}),
        ("{x:range(18,120)}", "17", None),
        ("{x:regex(^\\d{{3}}-\\d+$)}", "123-4", {"x": "123-4"}),
        ("{x:datetime}", "2026-12-31", {"x": "2026-12-31"}),
        ("{x:decimal}", "-1.5", {"x": "-1.5"}),
        ("{x=5}", "", {"x": "5"}),
        ("{x:int?}", "", {}),
        ("{**x}", "a/b", {"x": "a/b"}),
    ],
)
def test_route_constraints(template: str, path: str, expected: dict[str, str] | None) -> None:
    route = parse_route("f", template, None, "")
    assert route.match(path.split("/") if path else []) == expected


def test_unsupported_extension_is_refused(new_host: StartHost, tmp_path: Path) -> None:
    app_dir = write_app(tmp_path / "app", "import azurefunctions.extensions.fake\n" + HTTP)
    fake = app_dir / "azurefunctions" / "extensions" / "fake"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("")
    code, log = new_host(app_dir, {}).fails()
    assert code == 4
    assert "azurefunctions" in log
    assert "not supported by this host" in log


def test_worker_count_rule(new_host: StartHost, app_dir: Path) -> None:
    code, log = new_host(app_dir, {"FUNCTIONS_WORKER_PROCESS_COUNT": "eleven"}).fails()
    assert code == 4
    assert "FUNCTIONS_WORKER_PROCESS_COUNT: must be a whole number from 1 to 10" in log


def test_nothing_is_left_running_after_a_refusal(new_host: StartHost, tmp_path: Path) -> None:
    code = EMPTY + "import os, pathlib\npathlib.Path('pid').write_text(str(os.getpid()))\n"
    code += "@app.timer_trigger('t', schedule='never')\ndef f(t: func.TimerRequest) -> None: ...\n"
    app_dir = write_app(tmp_path / "app", code)
    host: HostProcess = new_host(app_dir, {})
    assert host.fails()[0] == 4
    assert not alive(int((app_dir / "pid").read_text()))
