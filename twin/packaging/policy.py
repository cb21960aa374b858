"""What a package is built for, and what it may hold."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Final

APPS: Final = ("score", "ingest", "drift", "retrain")

PYTHON: Final = "3.13"
PYTHON_TAG: Final = "cp313"
# glibc 2.28 is the oldest that current wheels are built for, and older than any image that runs Python 3.13 in Azure.
PLATFORM: Final = "x86_64-manylinux_2_28"
GLIBC: Final = (2, 28)

# Where the platform mounts a package. Only tracebacks of frozen code objects show it; imports set the real path.
WWWROOT: Final = "/home/site/wwwroot"
SITE_PACKAGES: Final = ".python_packages/lib/site-packages"
BUILD_INFO: Final = "tollgate-package.json"

SHARED_DISTRIBUTION: Final = "tollgate-shared"

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes beyond which a package is refused, in bytes.

    The pages of the Flex Consumption plan state no limit for a package. These are budgets of our own: an instance
    fetches and unpacks the package before its first answer, so its size is paid at every cold start.
    """

    zip_bytes: int = 250 * MIB
    unpacked_bytes: int = 750 * MIB


# Tools that only development needs; the worker belongs to the platform and breaks when a package brings its own.
_FORBIDDEN_EVERYWHERE: Final = frozenset(
    {"azure-functions-worker", "coverage", "debugpy", "hypothesis", "mypy", "pip", "pytest", "ruff", "tollgate", "uv"}
)
# What decides stays light: these slow its start or are for training and reports.
_FORBIDDEN_WHERE_DECIDED: Final = frozenset(
    {"evidently", "mlflow", "pandas", "pyspark", "scikit-learn", "shap", "sqlalchemy", "xgboost", "xgboost-cpu"}
)
FORBIDDEN_DISTRIBUTIONS: Final[dict[str, frozenset[str]]] = {
    "score": _FORBIDDEN_EVERYWHERE | _FORBIDDEN_WHERE_DECIDED,
    "ingest": _FORBIDDEN_EVERYWHERE | _FORBIDDEN_WHERE_DECIDED,
    "drift": _FORBIDDEN_EVERYWHERE,
    "retrain": _FORBIDDEN_EVERYWHERE,
}


def forbidden_distributions(app: str) -> frozenset[str]:
    """Normalised names of the distributions that `app` must not carry."""
    return FORBIDDEN_DISTRIBUTIONS.get(app, _FORBIDDEN_EVERYWHERE)


def normalised(name: str) -> str:
    """A distribution's name as indexes compare it (https://packaging.python.org/en/latest/specifications/name-normalization/)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def can_run_packages() -> bool:
    """Whether this interpreter could load the native modules of a package."""
    return sys.platform == "linux" and sys.version_info[:2] == (3, 13) and sys.implementation.name == "cpython"
