"""Fixtures of the tests that run in the environment of Pulumi; elsewhere nothing here is collected."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as drawing

drawing.register_profile("patient", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
drawing.load_profile("patient")

if find_spec("pulumi") is None:
    collect_ignore_glob = ["*"]


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that can be read."""
    from tests.infra.recording import write_packages

    return write_packages(tmp_path_factory.mktemp("packages"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """How many planted mistakes were caught; with `-v`, each with the checks that caught it."""
    reports = [
        (report.nodeid, dict(report.user_properties)["caught"], report.outcome)
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        if report.when == "call" and "caught" in dict(report.user_properties)
    ]
    if not reports:
        return
    caught = sum(outcome == "passed" for *_, outcome in reports)
    terminalreporter.write_line(f"planted mistakes: {len(reports)}, caught by the check that should: {caught}")
    if config.get_verbosity() > 0:
        for nodeid, by, _ in sorted(reports):
            name = nodeid.partition("[")[2].rstrip("]").replace("-", " ")
            terminalreporter.write_line(f"  {name:<48} {', '.join(sorted(by)) or 'NOTHING'}")
