"""The compose file and the means to judge it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_FILE = ROOT / "docker-compose.azurite.yml"
DCLINT = ROOT / "tests" / "node" / "node_modules" / "dclint"

_VARIABLE = re.compile(r"\$\{[A-Z_]+:-([^}]*)\}")


def with_defaults(value: Any) -> Any:
    """The document with every `${NAME:-default}` replaced by its default, and `$$` by `$`, as Compose does."""
    if isinstance(value, dict):
        return {key: with_defaults(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_defaults(item) for item in value]
    return _VARIABLE.sub(r"\1", value).replace("$$", "$") if isinstance(value, str) else value


@pytest.fixture(scope="session")
def raw_compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8"))
    return document


@pytest.fixture(scope="session")
def compose(raw_compose: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = with_defaults(raw_compose)
    return document


@pytest.fixture(scope="session")
def specification() -> Draft7Validator:
    schema = json.loads((DCLINT / "schemas" / "compose.schema.json").read_text(encoding="utf-8"))
    return Draft7Validator(schema)
