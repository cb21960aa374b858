"""The file is one that Compose would take, and says everything that the project asks of its services."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from typing import Any

import pytest
from jsonschema import Draft7Validator

from tests.compose.conftest import COMPOSE_FILE, DCLINT, ROOT

# Services whose image cannot check itself, or that end by design; the file says why at the service.
WITHOUT_HEALTH_CHECK = {
    "eventhubs": "no shell and no HTTP client in the image; eventhubs-ready asks its health endpoint",
    "mlflow-container": "runs once and ends; others wait for its success",
}
MOUNTED_BY_DESIGN = {"/"}  # node exporter reads the machine's figures
DEVELOPMENT_SECRETS = {
    "tollgate-local",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
}


def test_follows_the_compose_specification(raw_compose: dict[str, Any], specification: Draft7Validator) -> None:
    assert [error.message for error in specification.iter_errors(raw_compose)] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("services", "azurite", "helthcheck"), {}),
        (("services", "azurite", "healthcheck", "intervall"), "1s"),
        (("services", "postgres", "ports"), "5433:5432"),
        (("services", "mlflow", "depends_on", "postgres", "condition"), "service_fine"),
        (("servces",), {}),
    ],
)
def test_a_planted_mistake_is_found(
    path: tuple[str, ...], value: object, raw_compose: dict[str, Any], specification: Draft7Validator
) -> None:
    document = copy.deepcopy(raw_compose)
    target = document
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    assert list(specification.iter_errors(document))


def test_linter_agrees() -> None:
    # Two rules of order are off: the file tells its story from storage to dashboards, not from a to z.
    command = ["node", str(DCLINT / "bin" / "dclint.cjs"), str(COMPOSE_FILE), "--max-warnings", "0"]
    command += ["--disable-rule", "service-keys-order", "--disable-rule", "services-alphabetical-order"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_images_are_pinned_by_version(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z]+)?$", service["image"]), f"{name}: {service['image']}"


def test_azurite_is_the_version_that_the_twin_runs(compose: dict[str, Any]) -> None:
    pinned = json.loads((ROOT / "twin" / "node" / "package.json").read_text(encoding="utf-8"))["dependencies"][
        "azurite"
    ]
    assert compose["services"]["azurite"]["image"].endswith(f":{pinned}")


def test_every_service_says_when_it_is_healthy(compose: dict[str, Any]) -> None:
    without = {name for name, service in compose["services"].items() if "healthcheck" not in service}
    assert without == set(WITHOUT_HEALTH_CHECK)


def test_services_wait_for_what_they_need(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            expected = "service_healthy" if "healthcheck" in services[needed] else how["condition"]
            assert how["condition"] == expected, f"{name} waits for {needed}"
    assert services["mlflow"]["depends_on"]["mlflow-container"]["condition"] == "service_completed_successfully"
    assert services["eventhubs"]["depends_on"]["azurite"]["condition"] == "service_healthy"


def test_every_service_has_limits(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name
        assert service["logging"]["options"]["max-size"], name


def test_mounted_files_exist_and_are_read_only(compose: dict[str, Any]) -> None:
    mounts = [mount.split(":") for service in compose["services"].values() for mount in service.get("volumes", [])]
    bound = [parts for parts in mounts if parts[0].startswith((".", "/"))]
    assert len(bound) >= 5
    for source, _, options in bound:
        assert "ro" in options.split(",")
        assert source in MOUNTED_BY_DESIGN or (ROOT / source).exists(), source
    assert {parts[0] for parts in mounts if not parts[0].startswith((".", "/"))} == set(compose["volumes"])


def test_no_secret_but_the_documented_development_values(raw_compose: dict[str, Any]) -> None:
    text = COMPOSE_FILE.read_text(encoding="utf-8")
    assert not re.search(r"(PASSWORD|KEY): (?!\$\{)\S", text), "a password without ${NAME:-default}"
    defaults = set(re.findall(r"\$\{[A-Z_]*(?:PASSWORD|KEY)[A-Z_]*:-([^}]*)\}", text))
    assert defaults == DEVELOPMENT_SECRETS
