"""The layer of pinned libraries: installed, stripped, compiled and zipped once per set of pins.

A layer is found by the digest of everything it depends on (pins, platform, interpreter, this module's format), so the
cache never needs invalidation: other inputs, another name. Deleting the cache costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.parser import HeaderParser
from importlib.util import source_from_cache
from pathlib import Path, PurePosixPath

from uv import find_uv_bin

from twin.packaging import archive, contents
from twin.packaging.errors import InstallFailed, InvalidSource
from twin.packaging.policy import PLATFORM, PYTHON, SITE_PACKAGES, WWWROOT
from twin.packaging.source import digests

# Raise this when anything below changes what a layer holds.
_FORMAT = 1
_INSTALL_TIMEOUT_S = 900
_COMPILE_TIMEOUT_S = 300

# Console scripts name this machine's interpreter; the lock file is the installer's.
_DROPPED_TOP = ("bin", ".lock")
# Written by the installer, not by the library; RECORD would list files that are dropped here.
_DROPPED_METADATA = ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json")


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed distribution and what it weighs with its bytecode, uncompressed."""

    name: str
    version: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A cached layer: its zip, what it holds (path in the package to sha256), and whose it is."""

    path: Path
    files: dict[str, str]
    uncompressed_bytes: int
    distributions: tuple[Distribution, ...]


def layer_for(requirements: str, cache_dir: Path, *, offline: bool, say: Callable[[str], None]) -> Layer:
    """The layer of these pins: from the cache, or made now (a few seconds, plus what has to be downloaded).

    Args:
        requirements: Pinned, hashed requirements without comments.
        cache_dir: Where layers are kept.
        offline: Whether the installer may use its own cache only.
        say: Told what takes long.

    Raises:
        InstallFailed: If the distributions cannot be had as wheels for the platform, or do not match their hashes.
        WrongPlatform: If a native module among them cannot be loaded there.
    """
    folder = cache_dir / _key(requirements)
    cached = _load(folder)
    if cached is not None:
        return cached
    with archive.staging(cache_dir) as stage:
        count = len(re.findall(r"^\S+==", requirements, re.MULTILINE))
        say(f"installing {count} pinned packages for Python {PYTHON} on {PLATFORM}")
        site = stage / "site-packages"
        _install(requirements, stage, offline=offline)
        owners = _strip(site)
        say("compiling the packages' modules")
        compile_modules(site, f"{WWWROOT}/{SITE_PACKAGES}")
        say("compressing the packages")
        _write(site, owners, stage / "layer")
        _publish(stage / "layer", folder)
    made = _load(folder)
    if made is None:
        raise InstallFailed(f"the layer in {folder.name} is damaged right after it was written")
    return made


def compile_modules(folder: Path, shown_as: str) -> list[str]:
    """Compile all modules below `folder` in a fresh process, see `compile_tree`; return the files that are no Python.

    Raises:
        InvalidSource: If the process fails.
    """
    script = Path(__file__).with_name("compile_tree.py")
    done = subprocess.run(
        [sys.executable, "-s", "-S", "-P", str(script), str(folder), shown_as],
        env={"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=_COMPILE_TIMEOUT_S,
    )
    if done.returncode != 0:
        raise InvalidSource(f"compiling failed: {done.stderr.strip()[-500:]}")
    return done.stdout.splitlines()


def _key(requirements: str) -> str:
    depends_on = [_FORMAT, requirements, PLATFORM, platform.python_version(), zlib.ZLIB_RUNTIME_VERSION]
    return hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()[:24]


def _install(requirements: str, stage: Path, *, offline: bool) -> None:
    pins = stage / "requirements.txt"
    pins.write_text(requirements, encoding="utf-8")
    command = [find_uv_bin(), "pip", "install", "--quiet", "--target", str(stage / "site-packages")]
    command += ["--python", sys.executable, "--python-platform", PLATFORM, "--python-version", PYTHON]
    command += ["--only-binary", ":all:", "--require-hashes", "--link-mode", "copy", "-r", str(pins)]
    # The cache first, even online: pins with hashes cannot go stale, and most rebuilds then need no network.
    failure = _run_installer([*command, "--offline"])
    if failure and not offline:
        shutil.rmtree(stage / "site-packages", ignore_errors=True)
        failure = _run_installer(command)
    if failure:
        raise InstallFailed(f"the installer refused the pins: {failure[-1500:]}")
    (stage / "site-packages").mkdir(exist_ok=True)


def _run_installer(command: list[str]) -> str:
    """Run it and return what it complained about; empty means that all went well."""
    # A project's environment variable would redirect the target.
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=_INSTALL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise InstallFailed(f"the installer took more than {_INSTALL_TIMEOUT_S} s") from error
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"


def _strip(site: Path) -> dict[str, tuple[str, str]]:
    """Drop what varies, tests, and bytecode that is not ours; return each file's owner (name, version)."""
    owners: dict[str, tuple[str, str]] = {}
    for info in sorted(site.glob("*.dist-info")):
        owner = _identity(info)
        record = info / "RECORD"
        lines = record.read_text(encoding="utf-8").splitlines() if record.is_file() else []
        owners |= {line.partition(",")[0]: owner for line in lines}
        for name in _DROPPED_METADATA:
            (info / name).unlink(missing_ok=True)
    for name in _DROPPED_TOP:
        shutil.rmtree(site / name, ignore_errors=True)
        (site / name).unlink(missing_ok=True)
    for folder in [*_test_folders(site), *site.rglob("__pycache__")]:
        shutil.rmtree(folder, ignore_errors=True)
    return owners


def _identity(info: Path) -> tuple[str, str]:
    metadata = HeaderParser().parsestr((info / "METADATA").read_text(encoding="utf-8"))
    return str(metadata["Name"]), str(metadata["Version"])


def _test_folders(site: Path) -> list[Path]:
    """Folders of tests, by name and content: some libraries have a public module `tests` without any test in it."""
    named = [path for name in ("test", "tests") for path in site.rglob(name) if path.is_dir()]
    holding = [path for path in named if (path / "conftest.py").exists() or any(path.glob("test_*.py"))]
    return [path for path in holding if not any(other in path.parents for other in holding)]


def _write(site: Path, owners: dict[str, tuple[str, str]], folder: Path) -> None:
    files = {
        f"{SITE_PACKAGES}/{path.relative_to(site).as_posix()}": path.read_bytes()
        for path in sorted(site.rglob("*"))
        if path.is_file()
    }
    contents.refuse_native("packages", files)
    folder.mkdir()
    archive.append(folder / "layer.zip", files)
    sizes = dict.fromkeys(sorted(set(owners.values())), 0)
    for path, content in files.items():
        owner = owners.get(_source_of(path.removeprefix(f"{SITE_PACKAGES}/")))
        if owner is not None:
            sizes[owner] += len(content)
    description = {
        "zip_sha256": archive.file_digest(folder / "layer.zip"),
        "files": digests(files),
        "uncompressed_bytes": sum(map(len, files.values())),
        "distributions": [asdict(Distribution(name, version, size)) for (name, version), size in sizes.items()],
    }
    (folder / "layer.json").write_text(json.dumps(description), encoding="utf-8")


def _source_of(path: str) -> str:
    return PurePosixPath(source_from_cache(path)).as_posix() if "__pycache__/" in path else path


def _publish(made: Path, folder: Path) -> None:
    """Move a finished layer into place; when another process was faster, its equal layer stays."""
    if folder.exists() and _load(folder) is None:
        folder.replace(made.with_name("damaged"))
    try:
        made.replace(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _load(folder: Path) -> Layer | None:
    try:
        description = json.loads((folder / "layer.json").read_text(encoding="utf-8"))
        path = folder / "layer.zip"
        if archive.file_digest(path) != description["zip_sha256"]:
            return None
        return Layer(
            path=path,
            files=description["files"],
            uncompressed_bytes=description["uncompressed_bytes"],
            distributions=tuple(Distribution(**item) for item in description["distributions"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
