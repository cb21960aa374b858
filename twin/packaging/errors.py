"""Why a package was not made.

PackageError
    InvalidSource            the tree lacks a file, or two files that must agree do not
    InstallFailed            the pinned distributions could not be installed
    ForbiddenContent         a file that must never be deployed, or something that looks like a secret
        ForbiddenDistribution    a distribution this app must not carry
    WrongPlatform            a native module that the cloud's Python cannot load
    TooLarge                 over the size limit
    ImportRefused            the app does not import from its own package
        MissingImport            ... because a module is in no package
    BadArchive               a package that is damaged, or not the one its manifest describes
"""

from __future__ import annotations


class PackageError(Exception):
    """A package was refused; the message names the app, the finding and where it was found."""

    @property
    def reason(self) -> str:
        """The stable name of the refusal."""
        return type(self).__name__


class InvalidSource(PackageError):
    """The source tree is incomplete or contradicts itself."""


class InstallFailed(PackageError):
    """The installer failed; the message ends with what it said."""


class ForbiddenContent(PackageError):
    """A file or text that must not leave this machine."""


class ForbiddenDistribution(ForbiddenContent):
    """A distribution that this app must not carry."""


class WrongPlatform(PackageError):
    """A native module for another platform, Python or C library."""


class TooLarge(PackageError):
    """Over the configured size limit."""


class ImportRefused(PackageError):
    """The app fails to import with nothing but its package on the path."""


class MissingImport(ImportRefused):
    """A module that the app imports is not in its package."""


class BadArchive(PackageError):
    """A package that is damaged or is not the one it claims to be."""
