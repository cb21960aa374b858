"""Layers: made once per set of pins, stripped of what varies, healed when damaged."""

from __future__ import annotations

import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.packaging.conftest import real_pins
from twin.packaging import InstallFailed
from twin.packaging.layer import layer_for
from twin.packaging.policy import SITE_PACKAGES


class Said(list[str]):
    """Collects what a build says."""

    def __call__(self, text: str) -> None:
        self.append(text)


def test_second_time_comes_from_the_cache(tmp_path: Path) -> None:
    said = Said()
    first = layer_for(real_pins("idna"), tmp_path, offline=False, say=said)
    assert [text.split()[0] for text in said] == ["installing", "compiling", "compressing"]
    said.clear()
    assert layer_for(real_pins("idna"), tmp_path, offline=True, say=said) == first
    assert said == []
    assert [item.name for item in first.distributions] == ["idna"]


def test_nothing_that_varies_is_kept(cache_dir: Path) -> None:
    layer = layer_for(real_pins("certifi", "idna"), cache_dir, offline=False, say=Said())
    names = zipfile.ZipFile(layer.path).namelist()
    assert set(names) == set(layer.files)
    for name in names:
        relative = name.removeprefix(f"{SITE_PACKAGES}/")
        assert not relative.startswith(("bin/", ".lock"))
        assert not relative.endswith(("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"))
        assert "/tests/" not in relative
    assert f"{SITE_PACKAGES}/certifi/cacert.pem" in names


def test_weight_includes_bytecode(cache_dir: Path) -> None:
    layer = layer_for(real_pins("certifi", "idna"), cache_dir, offline=False, say=Said())
    assert sum(item.size_bytes for item in layer.distributions) == layer.uncompressed_bytes


@pytest.mark.parametrize("damage", ["layer.zip", "layer.json"])
def test_damaged_layer_is_made_again(damage: str, tmp_path: Path) -> None:
    first = layer_for(real_pins("idna"), tmp_path, offline=False, say=Said())
    broken = first.path.with_name(damage)
    broken.write_bytes(broken.read_bytes()[:-10])
    said = Said()
    assert layer_for(real_pins("idna"), tmp_path, offline=True, say=said) == first
    assert said[0].startswith("installing 1 pinned packages")
    assert len(list(tmp_path.iterdir())) == 1


def test_two_builds_at_once_agree(tmp_path: Path) -> None:
    def make(_: int) -> object:
        return layer_for(real_pins("idna"), tmp_path, offline=False, say=Said())

    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(make, range(3))
    assert others == [first, first]
    assert len(list(tmp_path.iterdir())) == 1


def test_wrong_hash_is_refused(tmp_path: Path) -> None:
    pins = real_pins("idna").split(" \\")[0] + " --hash=sha256:" + "0" * 64 + "\n"
    with pytest.raises(InstallFailed, match=r"(?i)hash"):
        layer_for(pins, tmp_path, offline=True, say=Said())
    assert list(tmp_path.iterdir()) == []


def test_missing_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstallFailed, match=r"(?i)hash"):
        layer_for("idna==3.10\n", tmp_path, offline=True, say=Said())


def test_unknown_pin_is_refused(tmp_path: Path) -> None:
    pins = "no-such-distribution-of-tollgate==1.0 --hash=sha256:" + "0" * 64 + "\n"
    with pytest.raises(InstallFailed, match="no-such-distribution-of-tollgate"):
        layer_for(pins, tmp_path, offline=True, say=Said())
