"""Static checks: will an app run under the real Functions host, before anything is started or packaged.

`check_app` looks at one app's folder, `check_settings_example` at the settings that a developer copies. Both return
what they found as `Problem`s; an empty list is a pass. Where a rule comes from is said at the rule.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from pathlib import Path

from twin.packaging.checks.function_app import check_function_app
from twin.packaging.checks.host_json import check_host_json
from twin.packaging.checks.local_settings import check_settings_example
from twin.packaging.checks.problem import Problem
from twin.packaging.checks.requirements import check_requirements

__all__ = ["Problem", "check_app", "check_settings_example"]


def check_app(app_dir: Path, *, settings: AbstractSet[str] | None = None) -> list[Problem]:
    """Everything that can be said about an app without running it.

    Args:
        app_dir: functions/<app>; the locked pins are looked for in requirements/<app>.txt beside `functions`.
        settings: Names of the app's settings, connections by their plain name; None leaves the names in bindings alone.
    """
    locked = app_dir.parent.parent / "requirements" / f"{app_dir.name}.txt"
    return [
        *check_host_json(app_dir / "host.json"),
        *check_function_app(app_dir, settings),
        *check_requirements(app_dir / "requirements.txt", locked),
    ]
