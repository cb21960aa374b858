"""The interface description, and the live app held to it by requests that are made from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.specs.openapi.schemas import OpenApiSchema

from shared.entrypoints.openapi import document
from tests.conftest import MigratedDatabase
from tests.integration.score_app import PATIENT, Models, ScoreApp, fields, login, running, settings

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 25
OPERATIONS = [f"{method.upper()} {path}" for path, methods in document("test")["paths"].items() for method in methods]


@pytest.fixture(scope="module")
def app(
    storage: str, migrated_database: MigratedDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ScoreApp]:
    models = Models(storage)
    champion = models.promote()
    app_settings = settings(storage, login(migrated_database), models.name, **PATIENT)
    with running(tmp_path_factory.mktemp("score"), app_settings) as made:
        made.serves(champion)
        made.score(fields("t-0001"))
        yield made
    models.close()


@pytest.fixture(scope="module")
def schema(app: ScoreApp) -> OpenApiSchema:
    description = app.host.get("/api/openapi.json").json()
    schemathesis.openapi.from_dict(description).validate()
    for methods in description["paths"].values():
        for operation in methods.values():
            operation.pop("security", None)  # the host checks keys, and this one was told not to
    return schemathesis.openapi.from_dict(description)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_live_app_keeps_to_its_description(
    app: ScoreApp, schema: OpenApiSchema, name: str, mode: GenerationMode
) -> None:
    method, path = name.split()
    operation = schema[path][method]
    if mode is GenerationMode.NEGATIVE and not (operation.body or operation.path_parameters or operation.query):
        return  # nothing can be wrong about a request without parts

    # A batch with a bad item is answered, and the item refused.
    checks = CHECKS if path == "/score/batch" else [*CHECKS, negative_data_rejection]

    @hypothesis.settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Case[Any]) -> None:
        case.call_and_validate(base_url=f"http://127.0.0.1:{app.host.port}/api", checks=checks)

    ask()


def test_every_route_of_the_app_is_described(app: ScoreApp) -> None:
    described = {path.partition("/{")[0] for path in document("test")["paths"]}
    listed = {
        "/" + str(item["invoke_url_template"]).rpartition("/api/")[2].partition("/{")[0]
        for item in app.host.get("/admin/functions").json()
    }
    assert listed - described == {"/probes", "/{*path}"}
    assert described <= listed


def test_the_examples_are_accepted(app: ScoreApp) -> None:
    example = document("test")["components"]["schemas"]["Transaction"]["examples"][0]
    sent = {**example, "transaction_id": "an-example", "event_time": fields()["event_time"]}
    assert app.score(sent).status == 200
