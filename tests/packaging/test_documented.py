"""docs/packages.md names what the code does."""

from __future__ import annotations

from typing import get_args

import pytest

from twin import packaging
from twin.packaging.checks.problem import Rule
from twin.packaging.policy import GLIBC, MIB, Limits
from twin.packaging.source import ROOT

PAGE = (ROOT / "docs" / "packages.md").read_text(encoding="utf-8")


def test_every_reason_is_documented() -> None:
    reasons = {
        name
        for name in packaging.__all__
        if isinstance(kind := getattr(packaging, name), type) and issubclass(kind, packaging.PackageError)
    }
    for reason in reasons - {"PackageError", "BadArchive"}:
        assert f"`{reason}`" in PAGE, reason


@pytest.mark.parametrize("rule", get_args(Rule))
def test_every_rule_of_the_checks_is_documented(rule: str) -> None:
    assert f"`{rule}`" in PAGE


def test_limits_are_those_of_the_code() -> None:
    assert f"over {Limits().zip_bytes // MIB} MiB" in PAGE
    assert f"more than {Limits().unpacked_bytes // MIB} MiB" in PAGE
    assert f"glibc than {GLIBC[0]}.{GLIBC[1]}" in PAGE
