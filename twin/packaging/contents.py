"""What must never be deployed: local settings, keys, secrets, tests, and libraries that an app must not carry."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Final

from twin.packaging.errors import ForbiddenContent, ForbiddenDistribution, WrongPlatform
from twin.packaging.native import native_problem
from twin.packaging.policy import SITE_PACKAGES, forbidden_distributions, normalised

_FORBIDDEN_NAMES: Final = (
    (re.compile(r"(^|/)local\.settings[^/]*\.json$"), "local settings stay on this machine"),
    (re.compile(r"(^|/)\.env(\.[^/]*)?$|\.env$"), "an environment file"),
    (re.compile(r"\.(pem|key|pfx|p12|jks|keystore)$"), "a key or certificate"),
    (re.compile(r"(^|/)id_(rsa|dsa|ecdsa|ed25519)$"), "a private key"),
    (re.compile(r"(^|/)(\.netrc|\.pypirc|\.npmrc|\.git-credentials)$"), "a file of credentials"),
    (re.compile(r"\.(publishsettings|pubxml)$"), "a publish profile"),
)
# Tests are ours to leave behind in the app and in `shared`; those of libraries are dropped when they are installed.
_TESTS: Final = re.compile(r"(^|/)(tests?/|test_[^/]*\.py$|[^/]*_test\.py$|conftest\.py$)")
# The public certificate authorities, without which no TLS connection is made.
_ALLOWED: Final = frozenset({f"{SITE_PACKAGES}/certifi/cacert.pem"})

_SECRETS: Final = (
    (re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"), "a private key"),
    (re.compile(rb"AccountKey=(?!Eby8vdM02xNOc)[A-Za-z0-9+/]{40,}={0,2}"), "a storage account key"),
    (re.compile(rb"SharedAccessKey=(?!SAS_KEY_VALUE)[A-Za-z0-9+/]{40,}={0,2}"), "an Event Hubs key"),
    (re.compile(rb"[?&]sig=[A-Za-z0-9%+/]{40,}"), "a shared access signature"),
    (re.compile(rb"\bgh[pousr]_[A-Za-z0-9]{36,}"), "a GitHub token"),
    (re.compile(rb"\b[a-z]+://[^\s/:@\"']+:(?!tollgate-local@)[^\s/:@\"'{}$]{6,}@[a-z0-9]"), "a URL with a password"),
)


def refuse_names(app: str, paths: Iterable[str]) -> None:
    """Refuse files that are secrets by their name, wherever in the package they are.

    Raises:
        ForbiddenContent: Naming the first such file and why.
    """
    for path in paths:
        for pattern, why in _FORBIDDEN_NAMES:
            if path not in _ALLOWED and pattern.search(path):
                raise ForbiddenContent(f"{app}: {path} must not be deployed: {why}")


def refuse_own(app: str, files: Mapping[str, bytes]) -> None:
    """Refuse tests and secrets among the files that we wrote: the app's and those of `shared`.

    Raises:
        ForbiddenContent: Naming file and line; the secret itself is not repeated.
    """
    for path, content in sorted(files.items()):
        if _TESTS.search(path):
            raise ForbiddenContent(f"{app}: {path} must not be deployed: a test; name it in .funcignore")
        secret = secret_in(content)
        if secret is not None:
            line, what = secret
            raise ForbiddenContent(f"{app}: {path}, line {line}: looks like {what}; packages hold no secrets")


def secret_in(content: bytes) -> tuple[int, str] | None:
    """Line (from 1) and kind of the first thing that looks like a secret; the documented development keys do not."""
    for pattern, what in _SECRETS:
        found = pattern.search(content)
        if found is not None:
            return content.count(b"\n", 0, found.start()) + 1, what
    return None


def refuse_native(app: str, files: Mapping[str, bytes]) -> None:
    """Refuse native modules that the cloud's Python cannot load.

    Raises:
        WrongPlatform: Naming the file and what it is built for.
    """
    for path, content in sorted(files.items()):
        problem = native_problem(path, content)
        if problem is not None:
            raise WrongPlatform(f"{app}: {path} {problem}")


def refuse_distributions(app: str, installed: Iterable[str]) -> None:
    """Refuse distributions that this app must not carry.

    Raises:
        ForbiddenDistribution: Naming all of them.
    """
    found = sorted({normalised(name) for name in installed} & forbidden_distributions(app))
    if found:
        raise ForbiddenDistribution(f"{app}: must not carry {', '.join(found)}; see requirements/{app}.txt")


def refuse_shadows(app: str, paths: Iterable[str], own: Iterable[str]) -> None:
    """Refuse libraries that hide the standard library, the app or `shared`.

    Raises:
        ForbiddenContent: Naming the module.
    """
    hidden = {*sys.stdlib_module_names, *own}
    for path in paths:
        top = path.removeprefix(f"{SITE_PACKAGES}/").partition("/")[0].removesuffix(".py")
        if top in hidden:
            raise ForbiddenContent(f"{app}: {path} hides the module {top}")
