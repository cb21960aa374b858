"""The wheel of `shared` is one that installers take."""

from __future__ import annotations

import base64
import csv
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from uv import find_uv_bin

from twin.packaging.wheel import wheel_files, write_wheel

SHARED = {"shared/__init__.py": b'"""Shared."""\n', "shared/py.typed": b"", "shared/domain/score.py": b"X = 1\n"}


def test_installer_takes_it_and_lays_out_the_same_files(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, "1.2.3", SHARED)
    assert wheel.name == "tollgate_shared-1.2.3-py3-none-any.whl"
    command = [find_uv_bin(), "pip", "install", "--quiet", "--offline", "--no-config", "--no-deps", "--no-cache"]
    command += ["--python", sys.executable, "--target", str(tmp_path / "site"), str(wheel)]
    subprocess.run(command, check=True, timeout=60)
    for path, content in wheel_files("1.2.3", SHARED).items():
        assert (tmp_path / "site" / path).read_bytes() == content


def test_record_lists_every_file_with_its_digest(tmp_path: Path) -> None:
    with zipfile.ZipFile(write_wheel(tmp_path, "1.2.3", SHARED)) as wheel:
        record = "tollgate_shared-1.2.3.dist-info/RECORD"
        rows = {row[0]: row[1:] for row in csv.reader(wheel.read(record).decode().splitlines())}
        assert set(rows) == set(wheel.namelist())
        assert rows.pop(record) == ["", ""]
        for path, (digest, size) in rows.items():
            content = wheel.read(path)
            expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert (digest, size) == (f"sha256={expected}", str(len(content)))


def test_equal_files_give_equal_bytes(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    first = write_wheel(tmp_path, "1.2.3", SHARED).read_bytes()
    assert write_wheel(tmp_path / "again", "1.2.3", dict(reversed(SHARED.items()))).read_bytes() == first
