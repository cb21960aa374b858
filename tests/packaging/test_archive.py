"""Zips depend on their contents only, and come back as they were or not at all."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from twin.packaging import BadArchive, unpack
from twin.packaging.archive import append, extract, file_digest, staging

FILES = {"host.json": b"{}", "a/b.txt": b"text" * 100, "a.txt": b""}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    append(tmp_path / "a.zip", FILES)
    return tmp_path / "a.zip"


def test_order_of_files_does_not_matter(archive: Path, tmp_path: Path) -> None:
    append(tmp_path / "b.zip", dict(reversed(FILES.items())))
    assert (tmp_path / "b.zip").read_bytes() == archive.read_bytes()


def test_adding_to_a_copy_is_deterministic(archive: Path, tmp_path: Path) -> None:
    copies = [tmp_path / name for name in ("one.zip", "two.zip")]
    for copy in copies:
        copy.write_bytes(archive.read_bytes())
        append(copy, {"more.txt": b"more"})
    assert copies[0].read_bytes() == copies[1].read_bytes()
    extract(copies[0], tmp_path / "out")
    assert (tmp_path / "out" / "more.txt").read_bytes() == b"more"
    assert (tmp_path / "out" / "a" / "b.txt").read_bytes() == FILES["a/b.txt"]


def test_unpack_twice_does_the_work_once(archive: Path, tmp_path: Path) -> None:
    target = unpack(archive, tmp_path / "out", expected_sha256=file_digest(archive))
    before = (target / "host.json").stat().st_ino
    assert unpack(archive, tmp_path / "out") == target
    assert (target / "host.json").stat().st_ino == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "out", "out.sha256"]


def test_another_package_replaces_all(archive: Path, tmp_path: Path) -> None:
    target = unpack(archive, tmp_path / "out")
    append(tmp_path / "b.zip", {"other.txt": b""})
    unpack(tmp_path / "b.zip", target)
    assert os.listdir(target) == ["other.txt"]  # noqa: PTH208 - names only


def test_wrong_digest_is_refused_before_anything_is_written(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="the manifest says abc"):
        unpack(archive, tmp_path / "out", expected_sha256="abc")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil.txt", "a/../../evil.txt"])
def test_entries_that_leave_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(BadArchive, match="leaves the folder"):
        unpack(tmp_path / "evil.zip", tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("evil.txt"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "no zip"])
def test_damage_is_refused(damage: str, archive: Path, tmp_path: Path) -> None:
    content = bytearray(archive.read_bytes())
    if damage == "cut":
        content = content[:-30]
    elif damage == "flipped":
        with zipfile.ZipFile(archive) as opened:
            entry = opened.getinfo("a/b.txt")
        start = entry.header_offset + 30 + len(entry.filename)
        content[start : start + 4] = bytes(byte ^ 0xFF for byte in content[start : start + 4])
    else:
        content = bytearray(b"no zip at all")
    (tmp_path / "damaged.zip").write_bytes(bytes(content))
    with pytest.raises(BadArchive, match=r"damaged\.zip"):
        unpack(tmp_path / "damaged.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_a_killed_process_left_is_removed_when_old(tmp_path: Path) -> None:
    old, young = tmp_path / ".stage-old", tmp_path / ".stage-young"
    for folder in (old, young):
        (folder / "deep").mkdir(parents=True)
    os.utime(old, (0, 0))
    with staging(tmp_path) as folder:
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == [young]
