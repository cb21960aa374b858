"""What can be said about the apps without running them: would they start under the real host."""

from __future__ import annotations

from shared.settings import AppSettings, DriftSettings, IngestSettings, RetrainSettings, ScoreSettings
from twin.packaging.checks import check_app, check_settings_example
from twin.services.settings import REPOSITORY

SETTINGS: dict[str, type[AppSettings]] = {
    "score": ScoreSettings,
    "ingest": IngestSettings,
    "drift": DriftSettings,
    "retrain": RetrainSettings,
}


def problems(app: str) -> list[str]:
    """What keeps an app from running under the real host; empty if nothing is known to."""
    found = check_app(REPOSITORY / "functions" / app, settings=SETTINGS[app].names())
    return [str(problem) for problem in found]


def example_problems() -> list[str]:
    """Where `local.settings.example.json` and the settings classes differ."""
    names = set[str]().union(*(kind.names() for kind in SETTINGS.values()))
    return [str(problem) for problem in check_settings_example(REPOSITORY / "local.settings.example.json", names)]
