"""Whole stacks: every check over a set of configurations that covers the switches pair by pair."""

from __future__ import annotations

import runpy
import subprocess
import sys
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pulumi
import pytest

from infra.config import ConfigError, read_config
from infra.stack import build
from tests.infra import checks
from tests.infra.recording import CLIENT, IMAGE, REQUIRED, Recording, run

SWITCHES: dict[str, tuple[str, str]] = {
    "privateNetwork": ("false", "true"),
    "publicScoring": ("false", "true"),
    "locks": ("false", "true"),
    "deployCode": ("false", "true"),
    "mlflow": ("false", "true"),
    "entraClientId": ("", CLIENT),
    "scoreAlwaysReady": ("0", "2"),
    "postgresSize": ("Standard_B2s", "Standard_D2ds_v5"),
    "deployerAddress": ("", "203.0.113.7"),
}

DEFAULTS = dict(zip(SWITCHES, ("false", "true", "false", "true", "false", "", "0", "Standard_B2s", ""), strict=True))
"""What the profile `dev` says."""


def _completed(values: dict[str, str]) -> dict[str, str]:
    return {**values, "mlflowImage": IMAGE} if values["mlflow"] == "true" else values


def _allowed() -> list[dict[str, str]]:
    """Every combination of switches that the configuration accepts."""
    found = []
    for combination in product(*SWITCHES.values()):
        values = dict(zip(SWITCHES, combination, strict=True))
        try:
            read_config({**REQUIRED, **_completed(values)}, "dev")
        except ConfigError:
            continue
        found.append(values)
    return found


def _pairs(values: dict[str, str]) -> set[tuple[tuple[str, str], tuple[str, str]]]:
    return {((a, values[a]), (b, values[b])) for a, b in combinations(SWITCHES, 2)}


def _covering() -> list[dict[str, str]]:
    """The defaults, and combinations taken greedily until every pair of values that can be together has been."""
    allowed = _allowed()
    left = set[Any]().union(*map(_pairs, allowed))
    chosen = []
    best = DEFAULTS
    while left:
        chosen.append(_completed(best))
        left -= _pairs(best)
        best = max(allowed, key=lambda values: len(_pairs(values) & left))
    return chosen


STACKS: list[tuple[str, dict[str, str]]] = [("prod", {}), *(("dev", values) for values in _covering())]


def recorded(stack: str, extra: dict[str, str], packages: Path, *, preview: bool = False) -> Recording:
    values = {**REQUIRED, **extra, "packagesFolder": str(packages)}
    return run(lambda: build(read_config(values, stack)).outputs, stack=stack, preview=preview)


@pytest.mark.parametrize(("stack", "extra"), STACKS, ids=[f"{stack}-{n}" for n, (stack, _) in enumerate(STACKS)])
def test_nothing_is_wrong_with_a_stack(stack: str, extra: dict[str, str], packages: Path) -> None:
    found = checks.everything(recorded(stack, extra, packages), {**extra, "stack": stack})
    assert not found, "\n".join(f"{finding.check}: {finding.text}" for finding in found)


def test_the_switches_can_be_combined_in_many_ways_and_few_runs_cover_their_pairs() -> None:
    assert len(_allowed()) >= 100
    covered = set[Any]().union(*(_pairs(extra) for stack, extra in STACKS if stack == "dev"))
    assert covered == set[Any]().union(*map(_pairs, _allowed()))
    assert len(STACKS) <= 12


@pytest.mark.parametrize(
    ("stack", "extra"), [("dev", {}), ("prod", {}), ("prod", {"mlflow": "true", "mlflowImage": IMAGE})]
)
def test_a_preview_declares_the_same_resources(stack: str, extra: dict[str, str], packages: Path) -> None:
    def declared(recording: Recording) -> set[tuple[str, str]]:
        return {(resource.typ, resource.name) for resource in recording.resources}

    ahead, done = (recorded(stack, extra, packages, preview=preview) for preview in (True, False))
    assert declared(ahead) == declared(done)


def test_the_program_reads_its_configuration_and_exports(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported: dict[str, Any] = {}
    monkeypatch.setattr(pulumi, "export", exported.__setitem__)
    monkeypatch.delenv("PULUMI_CONFIG", raising=False)

    def program() -> dict[str, Any]:
        values = {**REQUIRED, "packagesFolder": str(packages)}
        pulumi.runtime.set_all_config({f"tollgate:{name}": value for name, value in values.items()}, [])
        runpy.run_path(str(checks.ROOT / "infra" / "__main__.py"), run_name="__main__")
        return exported

    recording = run(program)
    assert not list(checks.outputs(recording, {}))
    assert recording.outputs["scoreEndpoint"].startswith("https://")


def test_a_misspelt_setting_of_the_stack_stops_the_program(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PULUMI_CONFIG", raising=False)

    def program() -> dict[str, Any]:
        values = {**REQUIRED, "packagesFolder": str(packages), "scoreAlwaysRedy": "2"}
        pulumi.runtime.set_all_config({f"tollgate:{name}": value for name, value in values.items()}, [])
        runpy.run_path(str(checks.ROOT / "infra" / "__main__.py"), run_name="__main__")
        return {}

    with pytest.raises(ConfigError, match="scoreAlwaysRedy is not a setting; is scoreAlwaysReady meant"):
        run(program)


def test_a_provider_can_be_loaded_by_the_process_that_runs_it(packages: Path) -> None:
    """The engine hands providers to another process, started in the program's folder, and keeps them in the state."""
    providers = {resource.plain["__provider"] for resource in recorded("dev", {}, packages).dynamic()}
    assert len(providers) == 3
    assert all(len(provider) < 1000 for provider in providers), "by reference: no code and no path of a machine"
    code = "import base64, dill, sys\nfor line in sys.stdin: print(type(dill.loads(base64.b64decode(line))).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=checks.ROOT / "infra",
        input="\n".join(sorted(providers)),
        text=True,
        capture_output=True,
        check=False,
    )
    assert sorted(done.stdout.split()) == ["CodePackageProvider", "DatabaseSchemaProvider", "VaultKeyProvider"], (
        done.stderr
    )
