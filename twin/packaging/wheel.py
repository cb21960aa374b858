"""The wheel of the shared library (https://packaging.python.org/en/latest/specifications/binary-distribution-format/).

Written here and not by the project's build backend: the project's own wheel also holds the twin, and a deployment
package must hold `shared` alone, under a name of its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from twin.packaging.archive import append
from twin.packaging.policy import SHARED_DISTRIBUTION

_WHEEL = "Wheel-Version: 1.0\nGenerator: tollgate\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheel_files(version: str, shared: Mapping[str, bytes]) -> dict[str, bytes]:
    """What the wheel installs: the package and its metadata, by path in site-packages.

    Args:
        version: Version of the project.
        shared: Files of the import package, by path from the root.
    """
    info = f"{_file_name()}-{version}.dist-info"
    # No Requires-Dist: what `shared` imports differs per app, and each app pins its own.
    metadata = (
        f"Metadata-Version: 2.4\nName: {SHARED_DISTRIBUTION}\nVersion: {version}\n"
        "Summary: What Tollgate's function apps share.\nLicense-Expression: Apache-2.0\nRequires-Python: >=3.13,<3.14\n"
    )
    files = dict(shared)
    files[f"{info}/METADATA"] = metadata.encode()
    files[f"{info}/WHEEL"] = _WHEEL.encode()
    files[f"{info}/top_level.txt"] = b"shared\n"
    return files


def write_wheel(folder: Path, version: str, shared: Mapping[str, bytes]) -> Path:
    """Write the wheel into `folder` and say where; equal files give equal bytes."""
    files = wheel_files(version, shared)
    record = f"{_file_name()}-{version}.dist-info/RECORD"
    files[record] = _record(files, record)
    path = folder / f"{_file_name()}-{version}-py3-none-any.whl"
    path.unlink(missing_ok=True)
    append(path, files)
    return path


def _file_name() -> str:
    return SHARED_DISTRIBUTION.replace("-", "_")


def _record(files: Mapping[str, bytes], own_path: str) -> bytes:
    lines = []
    for path, content in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(content)}\n")
    return "".join([*lines, f"{own_path},,\n"]).encode()
