"""What a package of a real app holds, and what its manifest says."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import Tree
from twin.packaging import Manifest, Package, build, size_report, unpack
from twin.packaging.archive import file_digest
from twin.packaging.policy import BUILD_INFO, SITE_PACKAGES
from twin.packaging.source import ROOT, Source, digests, tree_digest

UNCHECKED_HASH = 1  # PEP 552: hash-based, source not checked


@pytest.fixture(scope="module")
def contents(package: Package) -> dict[str, bytes]:
    with zipfile.ZipFile(package.path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_layout_is_that_of_a_ready_package(contents: dict[str, bytes]) -> None:
    top = {name.partition("/")[0] for name in contents}
    assert top == {".python_packages", "__pycache__", "function_app.py", "host.json", "requirements.txt", BUILD_INFO}
    assert f"{SITE_PACKAGES}/shared/bootstrap/parts.py" in contents
    assert f"{SITE_PACKAGES}/shared/py.typed" in contents
    assert f"{SITE_PACKAGES}/azure/functions/__init__.py" in contents
    assert f"{SITE_PACKAGES}/azure_functions_runtime/__init__.py" in contents
    assert any(name.endswith(".so") for name in contents)


def test_shared_is_installed_under_its_own_name(contents: dict[str, bytes], package: Package) -> None:
    version = Source(ROOT, "ingest").version()
    metadata = contents[f"{SITE_PACKAGES}/tollgate_shared-{version}.dist-info/METADATA"].decode()
    assert f"Name: tollgate-shared\nVersion: {version}\n" in metadata
    with zipfile.ZipFile(package.wheel_path) as wheel:
        for name in wheel.namelist():
            if not name.endswith("RECORD"):
                assert contents[f"{SITE_PACKAGES}/{name}"] == wheel.read(name)


def test_nothing_that_must_stay_behind(contents: dict[str, bytes]) -> None:
    for name in contents:
        assert not name.endswith((".funcignore", "local.settings.json", "/RECORD", "/INSTALLER")), name
        assert "/tests/" not in name, name
        assert not name.startswith((".venv", "tests")), name


def test_every_module_has_unchecked_bytecode_of_this_python(contents: dict[str, bytes]) -> None:
    compiled = [name for name in contents if name.endswith(".pyc")]
    sources = [name for name in contents if name.endswith(".py")]
    assert len(compiled) == len(sources) > 500
    for name in compiled:
        assert name.endswith(".cpython-313.pyc")
        assert int.from_bytes(contents[name][4:8], "little") == UNCHECKED_HASH
        assert str(ROOT).encode() not in contents[name]


def test_entries_carry_no_trace_of_the_build(package: Package) -> None:
    with zipfile.ZipFile(package.path) as archive:
        for entry in archive.infolist():
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
            assert entry.external_attr >> 16 == stat.S_IFREG | 0o644
            assert (entry.create_system, entry.compress_type, entry.extra) == (3, zipfile.ZIP_DEFLATED, b"")
        names = archive.namelist()
    assert len(names) == len(set(names))


def test_manifest_describes_the_zip(package: Package, contents: dict[str, bytes]) -> None:
    manifest = package.manifest
    assert manifest.sha256 == file_digest(package.path)
    assert manifest.size_bytes == package.path.stat().st_size
    assert manifest.file_count == len(contents)
    assert manifest.uncompressed_bytes == sum(map(len, contents.values()))
    assert manifest.content_sha256 == tree_digest(digests(contents))
    assert manifest.python_tag == "cp313"
    assert manifest.functions is not None
    assert {function.name: function.trigger for function in manifest.functions}["transactions"] == "eventHubTrigger"
    names = {item.name for item in manifest.distributions}
    assert {"azure-functions", "azure-functions-runtime", "pydantic"} <= names
    assert manifest.distributions[0].size_bytes == max(item.size_bytes for item in manifest.distributions)


def test_manifest_is_read_back(package: Package, tmp_path: Path) -> None:
    assert Manifest.read(package.manifest_path) == package.manifest
    document = json.loads(package.manifest_path.read_text(encoding="utf-8"))
    for broken in ({**document, "format": 99}, {"format": 1, "app": "x"}):
        (tmp_path / "broken.json").write_text(json.dumps(broken), encoding="utf-8")
        with pytest.raises(ValueError, match=r"broken\.json"):
            Manifest.read(tmp_path / "broken.json")


def test_package_says_what_it_was_built_from(package: Package, contents: dict[str, bytes]) -> None:
    info = json.loads(contents[BUILD_INFO])
    assert info["app"] == "ingest"
    assert info["source_sha256"] == package.manifest.source_sha256
    assert info["version"] == package.manifest.shared_version


def test_report_names_size_and_heaviest(package: Package) -> None:
    lines = size_report(package.manifest, largest=3).splitlines()
    assert lines[0].startswith("ingest: ")
    assert "MiB zipped" in lines[0]
    assert len(lines) == 4
    assert package.manifest.distributions[0].name in lines[1]


def test_unpacked_package_runs_from_bytecode_alone(package: Package, tmp_path: Path) -> None:
    folder = unpack(package.path, tmp_path / "app", expected_sha256=package.manifest.sha256)
    for module in ("function_app.py", f"{SITE_PACKAGES}/shared/bootstrap/parts.py"):
        (folder / module).write_text("raise SystemExit('compiled from source')", encoding="utf-8")
    code = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(folder / SITE_PACKAGES)!r}]; import function_app"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_revision_of_the_repository_is_recorded() -> None:
    revision = Source(ROOT, "score").revision()
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode != 0:
        assert revision is None
    else:
        assert revision is not None
        assert revision.commit == head.stdout.strip()


def test_no_revision_outside_a_repository(package: Package) -> None:
    assert package.manifest.revision is None


def test_change_of_the_app_reuses_the_libraries(tree: Tree, cache_dir: Path, tmp_path: Path) -> None:
    said: list[str] = []
    first = build("score", tmp_path / "out", root=tree.root, cache_dir=cache_dir, progress=said.append)
    tree.append("functions/score/function_app.py", "\nAFTER = 1\n")
    said.clear()
    second = build("score", tmp_path / "out", root=tree.root, cache_dir=cache_dir, progress=said.append, offline=True)
    assert said == []
    assert second.manifest.sha256 != first.manifest.sha256
    assert second.manifest.source_sha256 != first.manifest.source_sha256
    assert second.manifest.distributions == first.manifest.distributions


def test_funcignore_is_honoured(tree: Tree, cache_dir: Path, tmp_path: Path) -> None:
    tree.write("functions/score/notes.md", "notes")
    tree.write("functions/score/tests/test_x.py", "def test(): ...")
    tree.write("functions/score/local.settings.json", "{}")
    tree.write("functions/score/.venv/bin/python", "")
    (tree.root / "functions/score/.venv/bin/python3").symlink_to("python")
    tree.append("functions/score/.funcignore", "*.md\n")
    made = build("score", tmp_path / "out", root=tree.root, cache_dir=cache_dir)
    names = zipfile.ZipFile(made.path).namelist()
    own = {name for name in names if not name.startswith((".python_packages/", "__pycache__/"))}
    assert own == {"function_app.py", "host.json", "requirements.txt", BUILD_INFO}


def test_output_holds_zip_manifest_and_wheel_only(package: Package) -> None:
    names = {path.name for path in package.path.parent.iterdir()}
    assert names == {"ingest.zip", "ingest.manifest.json", package.wheel_path.name}
