"""Deterministic deployment packages, and the static checks of what is deployed.

`build` makes the zip of one app, `unpack` lays one out to run it, `twin.packaging.checks` says beforehand whether an
app will run under the real host. docs/packages.md describes the format.
"""

from __future__ import annotations

from twin.packaging.archive import unpack
from twin.packaging.build import Package, Progress, build
from twin.packaging.errors import (
    BadArchive,
    ForbiddenContent,
    ForbiddenDistribution,
    ImportRefused,
    InstallFailed,
    InvalidSource,
    MissingImport,
    PackageError,
    TooLarge,
    WrongPlatform,
)
from twin.packaging.manifest import Manifest, size_report
from twin.packaging.policy import Limits

__all__ = [
    "BadArchive",
    "ForbiddenContent",
    "ForbiddenDistribution",
    "ImportRefused",
    "InstallFailed",
    "InvalidSource",
    "Limits",
    "Manifest",
    "MissingImport",
    "Package",
    "PackageError",
    "Progress",
    "TooLarge",
    "WrongPlatform",
    "build",
    "size_report",
    "unpack",
]
