"""Documents say what the tree says."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from twin.services.static_checks import SETTINGS, example_problems, problems

ROOT = Path(__file__).resolve().parents[2]
RECORDS = sorted(path for path in (ROOT / "docs" / "adr").glob("[0-9]*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_index_lists_every_record_once() -> None:
    index = (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", index)
    assert listed == [path.name for path in RECORDS]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_has_its_parts_and_fits_on_a_page(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# {path.name[:4]} ")
    assert re.search(r"^Status: (accepted|superseded by \d{4}), \d{4}-\d{2}-\d{2}$", text, re.MULTILINE)
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences", "Evidence", "What would reverse it"]
    assert len(text.splitlines()) <= 60


def test_every_dependency_earns_its_place_in_the_record() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [line for extra in project["optional-dependencies"].values() for line in extra]
    for folder in ("twin", "tests", "infra"):
        wanted += json.loads((ROOT / folder / "node" / "package.json").read_text(encoding="utf-8"))["dependencies"]
    names = {re.split(r"[\[<>=;~! ]", line, maxsplit=1)[0] for line in wanted} - {project["name"]}
    record = (ROOT / "docs" / "adr" / "0011-dependencies.md").read_text(encoding="utf-8")
    mentioned = set(re.findall(r"[@A-Za-z0-9][A-Za-z0-9._/-]*", record))
    assert not names - mentioned


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)(?:#[^)]*)?\)", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_no_tracked_file_names_a_registry_or_a_path_of_a_machine() -> None:
    pattern = r"(index-url|find-links)[ =]|\"resolved\": *\"http|(^|[^A-Za-z0-9_.-])/(work|root)/[a-z.]"
    found = subprocess.run(
        ["git", "grep", "-nIE", pattern, "--", ".", ":!tests"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""


@pytest.mark.parametrize("app", SETTINGS)
def test_every_app_would_start_under_the_real_host_as_far_as_can_be_told(app: str) -> None:
    assert problems(app) == []


def test_the_settings_example_is_what_the_apps_read() -> None:
    assert example_problems() == []


@pytest.mark.parametrize("app", SETTINGS)
def test_every_non_default_host_value_is_explained(app: str) -> None:
    """Each top-level section of an app's host.json is named in docs/operations.md."""
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    document = json.loads((ROOT / "functions" / app / "host.json").read_text(encoding="utf-8"))
    names = {f"extensions.{name}" for name in document.pop("extensions", {})} | set(document) - {"version"}
    assert not {name for name in names if f"`{name}" not in operations}
