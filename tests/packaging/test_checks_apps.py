"""The real apps pass every static check; each planted mistake is found by the rule made for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.settings import AppSettings, DriftSettings, IngestSettings, RetrainSettings, ScoreSettings
from twin.packaging.checks import check_app, check_settings_example
from twin.packaging.policy import APPS
from twin.packaging.source import ROOT

SETTINGS: dict[str, type[AppSettings]] = {
    "score": ScoreSettings,
    "ingest": IngestSettings,
    "drift": DriftSettings,
    "retrain": RetrainSettings,
}


@pytest.mark.parametrize("app", APPS)
def test_real_app_has_no_problem(app: str) -> None:
    problems = check_app(ROOT / "functions" / app, settings=SETTINGS[app].names())
    assert [str(problem) for problem in problems] == []


def test_real_example_has_the_settings_of_all_apps() -> None:
    names = set().union(*(kind.names() for kind in SETTINGS.values()))
    assert [str(item) for item in check_settings_example(ROOT / "local.settings.example.json", names)] == []


@pytest.fixture
def app_dir(tmp_path: Path) -> Path:
    """A copy of the drift app: two timers, an event hub output and two HTTP functions."""
    folder = tmp_path / "functions" / "drift"
    shutil.copytree(ROOT / "functions" / "drift", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "requirements").mkdir()
    shutil.copyfile(ROOT / "requirements" / "drift.txt", tmp_path / "requirements" / "drift.txt")
    return folder


def rules(app_dir: Path) -> set[str]:
    return {problem.rule for problem in check_app(app_dir, settings=DriftSettings.names())}


def test_the_copy_is_clean(app_dir: Path) -> None:
    assert rules(app_dir) == set()


TRIGGER = '\n\n@app.timer_trigger(arg_name="timer", schedule="0 0 * * * *")\n'
FUNCTION = TRIGGER + "def extra({arguments}){returns}: ...\n"


def function(arguments: str, returns: str = "") -> str:
    return FUNCTION.format(arguments=arguments, returns=returns)


@pytest.mark.parametrize(
    ("rule", "addition"),
    [
        ("binding-type", function("events: list[func.EventHubEvent]")),
        ("binding-type", function("out: func.Out[list[str]]")),
        ("binding-type", function("out: 'func.Out[dict[str, str]]'")),
        ("binding-type", function("timer: func.TimerRequest", " -> tuple[str, str]")),
        ("binding-type", function("timer: 'func.TimerRequest]'")),
        ("binding-type", function("timer")),
        ("no-relative-import", "\nfrom . import other\n"),
        ("imports", "\nimport json\n"),
        ("imports", "\nfrom shared.adapters import blob_container\n"),
        ("imports", "\nfrom shared import settings\n"),
        ("imports", "\nfrom azure.storage.blob import BlobServiceClient\n"),
        ("imports", "\ndef later() -> None:\n    import os\n"),
        ("no-try", "\ntry:\n    pass\nfinally:\n    pass\n"),
        ("length", "\n" * 61),
        ("one-app", "\nother = func.FunctionApp()\n"),
        (
            "auth-level",
            "\n@app.route(route='x', auth_level='anonymous')\ndef lower(req: func.HttpRequest) -> str: ...\n",
        ),
        (
            "auth-level",
            "\n@app.route(route='x', auth_level=func.AuthLevel.Admin)\ndef lower(req: func.HttpRequest) -> str: ...\n",
        ),
        ("unique-names", "\n@app.function_name('SEND_PROBE')" + function("timer: func.TimerRequest")[1:]),
        ("unique-names", function("timer: func.TimerRequest").replace("extra", "forget_probes")),
        ("schedule", function("timer: func.TimerRequest").replace("0 0 * * * *", "0 * * * *")),
        ("setting", function("timer: func.TimerRequest").replace("0 0 * * * *", "%PROBE_SCHEDULES%")),
        (
            "setting",
            "\n@app.queue_trigger(arg_name='m', queue_name='q', connection='QUEUES')\ndef q(m: str): ...\n",
        ),
        ("function-app", "\ndef broken(:\n"),
    ],
)
def test_mistake_in_function_app(rule: str, addition: str, app_dir: Path) -> None:
    path = app_dir / "function_app.py"
    path.write_text(path.read_text(encoding="utf-8") + addition, encoding="utf-8")
    assert rule in rules(app_dir)


@pytest.mark.parametrize(
    "addition",
    [
        "\nfrom __future__ import annotations\n",
        "\nfrom typing import List, Sequence\n" + function("events: List[func.EventHubEvent]"),
        function("events: func.Out[typing.List[str]]"),
        "\n@app.route(route='x', auth_level='ADMIN')\ndef upper(req: func.HttpRequest) -> str: ...\n",
    ],
)
def test_what_the_worker_takes_is_left_alone(addition: str, app_dir: Path) -> None:
    path = app_dir / "function_app.py"
    path.write_text(path.read_text(encoding="utf-8") + addition, encoding="utf-8")
    assert rules(app_dir) <= {"length"}


def test_line_and_file_are_named(app_dir: Path) -> None:
    path = app_dir / "function_app.py"
    lines = len(path.read_text(encoding="utf-8").splitlines())
    path.write_text(path.read_text(encoding="utf-8") + "import json\n", encoding="utf-8")
    (problem,) = check_app(app_dir)
    assert (problem.file, problem.line) == (path, lines + 1)
    assert str(problem).startswith(f"{path}:{lines + 1}: imports: json")


@pytest.mark.parametrize("name", ["__init__.py", "helpers.py"])
def test_no_other_python_file(name: str, app_dir: Path) -> None:
    (app_dir / name).write_text("", encoding="utf-8")
    assert rules(app_dir) == {"one-file"}


def test_names_are_unchecked_without_settings(app_dir: Path) -> None:
    path = app_dir / "function_app.py"
    path.write_text(path.read_text(encoding="utf-8").replace("%PROBE_SCHEDULE%", "%OTHER%"), encoding="utf-8")
    assert check_app(app_dir) == []
    assert rules(app_dir) == {"setting"}


def replaced(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


HASH = " --hash=sha256:" + "0" * 64 + "\n"


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("runtime-pinned", replaced("azure-functions-runtime==1.3.0", "azure-functions-runtimes==1.3.0")),
        ("runtime-pinned", replaced("azure-functions==2.3.0", "azure-functions>=2.3.0")),
        ("pinned", replaced("azure-functions==2.3.0", "azure-functions>=2.3.0")),
        ("hashed", lambda text: text + "idna==3.20\n"),
        ("no-worker", lambda text: text + "azure_functions_worker==4.40.0" + HASH),
        ("local-requirement", lambda text: text + "-e ../shared\n"),
        ("local-requirement", lambda text: text + "./wheels/shared.whl\n"),
        ("local-requirement", lambda text: text + "shared @ file:///tmp/shared\n"),
        ("local-requirement", lambda text: text + "git+https://example.org/shared\n"),
        ("index", lambda text: "--extra-index-url https://example.org/simple\n" + text),
        ("index", lambda text: "--find-links wheels\n" + text),
    ],
)
def test_mistake_in_requirements(rule: str, change: Callable[[str], str], app_dir: Path) -> None:
    locked = app_dir.parent.parent / "requirements" / "drift.txt"
    text = change(locked.read_text(encoding="utf-8"))
    for path in (locked, app_dir / "requirements.txt"):
        path.write_text(text, encoding="utf-8")
    assert rule in rules(app_dir)


def test_requirements_that_are_not_the_locked_ones(app_dir: Path) -> None:
    path = app_dir / "requirements.txt"
    path.write_text(path.read_text(encoding="utf-8") + "# by hand\n", encoding="utf-8")
    assert rules(app_dir) == {"requirements-locked"}
    path.unlink()
    assert rules(app_dir) == {"requirements"}
