"""A built package as the stack sees it: the zip and what its manifest promises.

`tollgate package` builds both and refuses what must not be deployed (docs/packages.md). Here the promise is only
checked: what is published is byte for byte what was built and examined.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from infra.delivery.errors import PackageError

FORMAT = 1
"""The manifest format that is understood."""


@dataclass(frozen=True, slots=True)
class Package:
    """One app's package.

    Attributes:
        app: The app it is for.
        path: The zip.
        sha256: Digest of the zip.
        functions: Names of the functions that the package was seen to have.
        version: What `shared` says its version is; for people.
    """

    app: str
    path: Path
    sha256: str
    functions: tuple[str, ...]
    version: str

    def content(self) -> bytes:
        """Return the zip's bytes.

        Raises:
            PackageError: They are not those of the manifest any more.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise PackageError(f"{self.path}: cannot be read ({error.strerror}); run `tollgate package`") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise PackageError(f"{self.path}: is not the package of its manifest; run `tollgate package`")
        return data


def read_package(app: str, folder: Path) -> Package:
    """Read an app's manifest from the folder of packages.

    Raises:
        PackageError: There is none, it cannot be read, or it is not for this app, or its functions were never listed.
    """
    path = folder / f"{app}.manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["format"], manifest["app"], manifest["functions"]
        package = Package(
            app=app,
            path=folder / manifest["file"],
            sha256=manifest["sha256"],
            functions=tuple(sorted(function["name"] for function in manifest["functions"] or ())),
            version=manifest["shared_version"],
        )
    except FileNotFoundError as error:
        raise PackageError(f"{path}: there is no package; run `tollgate package`") from error
    except (ValueError, KeyError, TypeError) as error:
        raise PackageError(f"{path}: is not a package manifest ({error!r}); run `tollgate package`") from error
    if found[0] != FORMAT or found[1] != app:
        raise PackageError(f"{path}: format {found[0]} for {found[1]}, wanted format {FORMAT} for {app}")
    if not package.functions:
        raise PackageError(f"{path}: its functions were never listed; build it on Linux with Python 3.13")
    if not package.path.is_file():
        raise PackageError(f"{package.path}: is missing; run `tollgate package`")
    return package
