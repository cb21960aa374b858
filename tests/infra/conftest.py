"""Fixtures of the tests that run in the environment of Pulumi; elsewhere nothing here is collected."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("pulumi") is None:
    collect_ignore_glob = ["*"]


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that can be read."""
    from tests.infra.recording import write_packages

    return write_packages(tmp_path_factory.mktemp("packages"))
