"""Build the deployment package of one app: a pure function of the source tree."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from twin.packaging import archive, contents
from twin.packaging.errors import InvalidSource, TooLarge
from twin.packaging.imports import Function, functions_of
from twin.packaging.layer import Layer, compile_modules, layer_for
from twin.packaging.manifest import FORMAT, Manifest
from twin.packaging.policy import (
    BUILD_INFO,
    MIB,
    PLATFORM,
    PYTHON_TAG,
    SITE_PACKAGES,
    WWWROOT,
    Limits,
    can_run_packages,
)
from twin.packaging.source import ROOT, Source, digests, tree_digest
from twin.packaging.wheel import wheel_files, write_wheel

Progress = Callable[[str], None]

_DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Package:
    """A finished package: the zip, its manifest beside it, and the wheel of `shared` that went in."""

    app: str
    path: Path
    manifest_path: Path
    wheel_path: Path
    manifest: Manifest


def build(
    app: str,
    output_dir: Path,
    *,
    root: Path = ROOT,
    cache_dir: Path | None = None,
    limits: Limits = _DEFAULT_LIMITS,
    offline: bool = False,
    progress: Progress | None = None,
) -> Package:
    """Build `<output_dir>/<app>.zip` and `<app>.manifest.json`; nothing is left behind when it refuses.

    Equal trees give equal bytes, whatever the folder, time, locale and umask: see docs/packages.md for what the bytes
    do depend on.

    Args:
        app: Name of the folder under `functions`.
        output_dir: Where zip, manifest and wheel go; files of an earlier build are replaced.
        root: The source tree.
        cache_dir: Where installed libraries are kept, `<root>/build/packages/.cache` by default.
        limits: Sizes beyond which the package is refused.
        offline: Take distributions from the installer's cache only.
        progress: Told in a few words what takes long.

    Raises:
        PackageError: One of its kinds, with the reason; see `twin.packaging.errors`.
    """

    def say(text: str) -> None:
        if progress is not None:
            progress(f"{app}: {text}")

    source = Source(root, app)
    app_files, shared_files, version = source.app_files(), source.shared_files(), source.version()
    requirements = source.requirements()
    _refuse_own_files(app, app_files, shared_files)
    layer = layer_for(requirements, cache_dir or root / "build" / "packages" / ".cache", offline=offline, say=say)
    _refuse_libraries(app, layer)

    source_sha256 = tree_digest(digests({**app_files, **shared_files, "requirements.txt": requirements.encode()}))
    info = {"app": app, "version": version, "source_sha256": source_sha256, "python_tag": PYTHON_TAG}
    own_files = {**app_files, BUILD_INFO: (json.dumps(info, indent=2) + "\n").encode()}
    own_files |= {f"{SITE_PACKAGES}/{path}": data for path, data in wheel_files(version, shared_files).items()}
    with archive.staging(output_dir) as stage:
        own_files = _with_bytecode(app, own_files, stage / "own")
        zip_path = stage / f"{app}.zip"
        shutil.copyfile(layer.path, zip_path)
        archive.append(zip_path, own_files)
        uncompressed = layer.uncompressed_bytes + sum(map(len, own_files.values()))
        _refuse_size(app, zip_path.stat().st_size, uncompressed, limits)
        functions = _check_imports(app, zip_path, stage / "unpacked", say)
        wheel = write_wheel(stage, version, shared_files)
        files = {**layer.files, **digests(own_files)}
        manifest = Manifest(
            format=FORMAT,
            app=app,
            file=zip_path.name,
            sha256=archive.file_digest(zip_path),
            content_sha256=tree_digest(files),
            size_bytes=zip_path.stat().st_size,
            uncompressed_bytes=uncompressed,
            file_count=len(files),
            distributions=tuple(sorted(layer.distributions, key=lambda item: (-item.size_bytes, item.name))),
            functions=functions,
            shared_version=version,
            shared_wheel=wheel.name,
            source_sha256=source_sha256,
            revision=source.revision(),
            python_tag=PYTHON_TAG,
            platform=PLATFORM,
            bytecode=f"unchecked-hash, CPython {platform.python_version()}",
        )
        return _publish(manifest, stage, output_dir)


def _refuse_own_files(app: str, app_files: dict[str, bytes], shared_files: dict[str, bytes]) -> None:
    own = {**app_files, **shared_files}
    contents.refuse_names(app, own)
    contents.refuse_own(app, own)
    contents.refuse_native(app, own)


def _refuse_libraries(app: str, layer: Layer) -> None:
    contents.refuse_distributions(app, (item.name for item in layer.distributions))
    contents.refuse_names(app, layer.files)
    contents.refuse_shadows(app, layer.files, own=("shared", "function_app"))


def _with_bytecode(app: str, files: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    failed = compile_modules(folder, WWWROOT)
    if failed:
        raise InvalidSource(f"{app}: no valid Python: {', '.join(failed)}")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _refuse_size(app: str, zipped: int, unpacked: int, limits: Limits) -> None:
    for what, size, limit in (("zip", zipped, limits.zip_bytes), ("unpacked", unpacked, limits.unpacked_bytes)):
        if size > limit:
            raise TooLarge(f"{app}: {what} is {size / MIB:.1f} MiB, the limit is {limit / MIB:.1f} MiB")


def _check_imports(app: str, zip_path: Path, folder: Path, say: Progress) -> tuple[Function, ...] | None:
    if not can_run_packages():
        say("import check skipped: this interpreter cannot load the package's native modules")
        return None
    archive.extract(zip_path, folder)
    return functions_of(app, folder)


def _publish(manifest: Manifest, stage: Path, output_dir: Path) -> Package:
    """Move the results into place, the manifest last: a manifest always finds the zip it describes."""
    manifest_path = output_dir / f"{manifest.app}.manifest.json"
    manifest_path.unlink(missing_ok=True)
    for name in (manifest.shared_wheel, manifest.file):
        (stage / name).replace(output_dir / name)
    staged = stage / manifest_path.name
    staged.write_text(manifest.to_json(), encoding="utf-8")
    staged.replace(manifest_path)
    wheel = output_dir / manifest.shared_wheel
    return Package(manifest.app, output_dir / manifest.file, manifest_path, wheel, manifest)
