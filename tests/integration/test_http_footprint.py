"""What the score app has loaded once it decided: cold start and memory are features, so the list is held."""

from __future__ import annotations

import os
import sys

from benchmarks.bench_cold import start
from tests.conftest import MigratedDatabase
from tests.integration.score_app import Models, login, settings

ALLOWED = {
    "annotated_types",
    "azure",
    "azure_functions_runtime",
    "certifi",
    "charset_normalizer",
    "cryptography",
    "cython_runtime",
    "function_app",
    "greenlet",
    "idna",
    "isodate",
    "markupsafe",
    "numpy",
    "onnxruntime",
    "psycopg",
    "psycopg_binary",
    "pydantic",
    "pydantic_core",
    "requests",
    "shared",
    "typing_extensions",
    "typing_inspection",
    "urllib3",
    "werkzeug",
}
"""Third-party top-level modules; not `twin` and `benchmarks`, which drive the worker in this test."""

DRIVING = {"benchmarks", "twin"}
# azure-core loads it wherever it is installed, and in a package it is not.
BESIDE = {"aiohttp", "aiosignal", "aiohappyeyeballs", "attr", "attrs", "frozenlist", "multidict", "propcache", "yarl"}


def test_a_first_decision_loads_only_what_it_needs(storage: str, migrated_database: MigratedDatabase) -> None:
    models = Models(storage)
    models.promote()
    found = start({**os.environ, **settings(storage, login(migrated_database), models.name)})
    models.close()
    own = {name for name in found["modules"] if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert own - DRIVING - BESIDE - ALLOWED == set()
    assert found["rss_mb"] < 200
