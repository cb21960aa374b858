"""The workflows: actionlint, least rights, and no name that the documentation does not explain."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.checks import ROOT, lint_workflows

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

# The linter's WebAssembly build knows GitHub as of 2022: neither the context `vars` nor newer runner images.
YOUNGER_THAN_THE_LINTER = re.compile(r'^undefined variable "vars"\.|^label "ubuntu-24\.04" is unknown\.')


def loaded(path: Path) -> dict[str, Any]:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    # YAML 1.1 reads the key `on` as a boolean.
    return {"on" if key is True else str(key): value for key, value in document.items()}


def test_actionlint_finds_nothing() -> None:
    found = [finding for finding in lint_workflows(WORKFLOWS) if not YOUNGER_THAN_THE_LINTER.match(finding["message"])]
    assert not found


def test_actionlint_would_find_something(tmp_path: Path) -> None:
    path = tmp_path / "broken.yml"
    text = WORKFLOWS[0].read_text(encoding="utf-8")
    path.write_text(text.replace("runs-on:", "run-on:", 1).replace("${{ github.ref }}", "${{ github.reff }}"), "utf-8")
    messages = " ".join(finding["message"] for finding in lint_workflows([path]))
    assert "run-on" in messages
    assert "reff" in messages


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_asks_for_no_more_rights_than_it_states(path: Path) -> None:
    document = loaded(path)
    assert document["permissions"] == {"contents": "read"} or path.stem == "infra-preview"
    assert "pull_request_target" not in document["on"]
    for job in document["jobs"].values():
        assert "timeout-minutes" in job or "uses" in job
    assert "secrets." not in path.read_text(encoding="utf-8"), "nothing is stored: logins are federated"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_text_of_a_stranger_reaches_a_shell(path: Path) -> None:
    for job in loaded(path)["jobs"].values():
        for step in job.get("steps", ()):
            assert "${{" not in step.get("run", ""), "values go through env, so that they are never code"


def test_every_variable_is_explained() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    guide = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    missing = {name for name in re.findall(r"\bvars\.([A-Z_]+)", text) if f"`{name}`" not in guide}
    assert not missing


def test_the_deployment_waits_for_an_approval_before_production() -> None:
    deploy = loaded(ROOT / ".github" / "workflows" / "deploy.yml")
    assert deploy["on"] == {"push": {"tags": ["v*"]}}
    assert (deploy["jobs"]["dev"]["needs"], deploy["jobs"]["prod"]["needs"]) == ("build", "dev")
    stack = loaded(ROOT / ".github" / "workflows" / "deploy-stack.yml")
    # Protection rules hang on the environment, which is the stack's name.
    assert stack["jobs"]["up"]["environment"] == "${{ inputs.stack }}"
