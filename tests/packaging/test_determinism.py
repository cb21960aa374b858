"""Two builds of the same tree are the same bytes, wherever, whenever and by whomever they are made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.conftest import copy_sources
from twin.packaging import Package
from twin.packaging.archive import file_digest
from twin.packaging.source import ROOT, Source

BUILD = """
import os, sys
from pathlib import Path
os.umask(0o077)
from twin.packaging import build
build("ingest", Path(sys.argv[1]), root=Path(sys.argv[2]), cache_dir=Path(sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_another_folder_umask_locale_zone_and_cache(package: Package, sources: Path, tmp_path: Path) -> None:
    copy = tmp_path / "a folder with spaces"
    subprocess.run(["cp", "-r", str(sources), str(copy)], check=True)
    environment = {"LC_ALL": "C", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "4242", "PYTHONPATH": str(ROOT)}
    arguments = [str(tmp_path / "out"), str(copy), str(tmp_path / "another cache")]
    subprocess.run(
        [sys.executable, "-c", BUILD, *arguments],
        check=True,
        timeout=500,
        cwd=tmp_path,
        env={**os.environ, **environment},
    )
    again = tmp_path / "out" / package.path.name
    assert file_digest(again) == package.manifest.sha256
    assert again.read_bytes() == package.path.read_bytes()
    wheel = tmp_path / "out" / package.wheel_path.name
    assert wheel.read_bytes() == package.wheel_path.read_bytes()
    assert (tmp_path / "out" / package.manifest_path.name).read_text() == package.manifest_path.read_text()


def test_times_of_the_sources_do_not_matter(tmp_path: Path) -> None:
    first, second = (copy_sources("score", tmp_path / name) for name in ("one", "two"))
    os.utime(second / "functions" / "score" / "host.json", (0, 0))
    assert Source(first, "score").app_files() == Source(second, "score").app_files()
