"""The manifest that lies beside a package, and the report of its size."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from twin.packaging.imports import Function
from twin.packaging.layer import Distribution
from twin.packaging.policy import MIB
from twin.packaging.source import Revision

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in a package, what it was made of and for; sizes in bytes, digests sha256 in hex."""

    format: int
    app: str
    file: str
    sha256: str
    content_sha256: str
    """Over paths and contents alone: equal even where another zlib compressed otherwise."""
    size_bytes: int
    uncompressed_bytes: int
    file_count: int
    distributions: tuple[Distribution, ...]
    """Largest first."""
    functions: tuple[Function, ...] | None
    """What the import check found; None where this interpreter cannot run the package's modules."""
    shared_version: str
    shared_wheel: str
    source_sha256: str
    """Over the app's files, `shared` and the pins."""
    revision: Revision | None
    python_tag: str
    platform: str
    bytecode: str

    def to_json(self) -> str:
        """The manifest as it is written."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest back.

        Raises:
            ValueError: If the file is not a manifest of this format.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["format"] != FORMAT:
                raise ValueError(f"{path.name}: manifest format {data['format']}, this version reads {FORMAT}")
            data["distributions"] = tuple(Distribution(**item) for item in data["distributions"])
            if data["functions"] is not None:
                data["functions"] = tuple(
                    Function(item["name"], item["trigger"], tuple(item["bindings"])) for item in data["functions"]
                )
            data["revision"] = None if data["revision"] is None else Revision(**data["revision"])
            return cls(**data)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path.name} is not a package manifest: {error!r}") from error


def size_report(manifest: Manifest, *, largest: int = 5) -> str:
    """A few lines for people: the package's size and its heaviest distributions."""
    head = (
        f"{manifest.app}: {manifest.size_bytes / MIB:.1f} MiB zipped, "
        f"{manifest.uncompressed_bytes / MIB:.1f} MiB unpacked, {manifest.file_count} files"
    )
    rows = [f"  {d.size_bytes / MIB:6.1f} MiB  {d.name} {d.version}" for d in manifest.distributions[:largest]]
    return "\n".join([head, *rows])
