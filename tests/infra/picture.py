"""The picture and the tables of the documents, made from the program: `python -m tests.infra.picture` writes them."""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

from infra.capacity import capacity_table, cost_table
from infra.config import read_config
from infra.stack import build
from tests.infra.checks import ROLE_NAMES, ROOT
from tests.infra.recording import IMAGE, OPERATORS, REQUIRED, Recording, run, write_packages

README = ROOT / "infra" / "README.md"
DOCS = ROOT / "docs"
COMMAND = ".venv-infra/bin/python -m tests.infra.picture"


def documents(recording: Recording) -> dict[Path, dict[str, str]]:
    """Document -> name of a generated part in it -> its text."""
    return {
        README: {"picture": picture(recording), "types": types(recording), "access": access(recording)},
        DOCS / "capacity.md": {"capacity": capacity_table()},
        DOCS / "costs.md": {"costs": cost_table()},
    }


def picture(recording: Recording) -> str:
    """Components and what each waits for, less what follows from the rest; in Mermaid."""
    parts = {resource.urn: resource for resource in recording.resources}

    def owner(urn: str) -> str:
        """The outermost component of a resource; what is not Azure Resource Manager's stands for itself."""
        if parts[urn].typ.startswith("pulumi-python:dynamic:"):
            return urn
        while parts[urn].parent in parts:
            urn = parts[urn].parent
        return urn

    waits: dict[str, set[str]] = {owner(urn): set() for urn in parts}
    for urn, resource in parts.items():
        waits[owner(urn)] |= {owner(other) for other in resource.dependencies & parts.keys()} - {owner(urn)}
    reached = {urn: _reach(urn, waits) for urn in waits}
    lines = ["```mermaid", "flowchart LR"]
    order = sorted(waits, key=lambda urn: parts[urn].name)
    node = {urn: re.sub(r"[^a-z]", "_", parts[urn].name) for urn in order}
    sizes = Counter(owner(urn) for urn, resource in parts.items() if not resource.typ.startswith("tollgate:"))
    lines += [f'  {node[urn]}["{parts[urn].name} ({sizes[urn]})"]' for urn in order]
    for urn in order:
        direct = waits[urn] - {far for near in waits[urn] - {urn} for far in reached[near] if near != far}
        lines += [f"  {node[urn]} --> {node[other]}" for other in sorted(direct, key=lambda u: parts[u].name)]
    return "\n".join([*lines, "```"])


def types(recording: Recording) -> str:
    """How many resources of each type."""
    counts = Counter(
        r.typ.removeprefix("azure-native:") for r in recording.resources if not r.typ.startswith("tollgate:")
    )
    rows = [f"| {typ} | {number} |" for typ, number in sorted(counts.items())]
    return "\n".join(["| type | number |", "|---|---|", *rows, f"| **all** | **{sum(counts.values())}** |"])


def access(recording: Recording) -> str:
    """The role assignments, one per line."""
    rows = set()
    for resource in recording.of_type("authorization:RoleAssignment"):
        inputs = resource.plain
        who = "operators" if inputs["principalId"] == OPERATORS else inputs["principalId"].split("-")[2]
        kind, name = inputs["scope"].split("/")[-2:]
        name = re.sub(r"^st([a-z]+)prod[0-9a-f]{6}$", r"\1", re.sub(r"-prod(-[0-9a-f]{6})?$", "", name))
        rows.add(f"| {who} | {ROLE_NAMES[inputs['roleDefinitionId'].rsplit('/', 1)[-1]]} | {kind}/{name} |")
    return "\n".join(["| principal | role | scope |", "|---|---|---|", *sorted(rows)])


def recorded() -> Recording:
    """The largest stack there is."""
    with tempfile.TemporaryDirectory() as folder:
        packages = write_packages(Path(folder))
        values = {**REQUIRED, "packagesFolder": str(packages), "mlflow": "true", "mlflowImage": IMAGE}
        return run(lambda: build(read_config(values, "prod")).outputs, stack="prod")


def filled(text: str, parts: dict[str, str]) -> str:
    """The document with every generated part replaced."""
    for name, part in parts.items():
        begin, end = f"<!-- {name}: {COMMAND} -->\n", f"\n<!-- /{name} -->"
        before, found, rest = text.partition(begin)
        if not found or end not in rest:
            raise ValueError(f"there is no place for {name}")
        text = f"{before}{begin}{part}{end}{rest.split(end, 1)[1]}"
    return text


def _reach(start: str, waits: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    todo = [start]
    while todo:
        new = waits[todo.pop()] - found
        found |= new
        todo += new
    return found


if __name__ == "__main__":
    for path, parts in documents(recorded()).items():
        path.write_text(filled(path.read_text(encoding="utf-8"), parts), encoding="utf-8")
        sys.stdout.write(f"wrote {path.relative_to(ROOT)}\n")
