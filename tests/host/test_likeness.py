"""The page on likeness names tests that exist, and every likeness it claims has one."""

from __future__ import annotations

import re
from pathlib import Path

from tests.host.hosting import ROOT

PAGE = ROOT / "docs" / "host-likeness.md"


def defined() -> set[str]:
    files = Path(__file__).parent.glob("test_*.py")
    return {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)}


def test_every_named_test_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    assert len(named) > 50
    assert named - defined() == set()


def test_every_row_of_likeness_names_a_test() -> None:
    claims = PAGE.read_text().split("## Processes and start")[1].split("## Refused")[0]
    rows = [line for line in claims.splitlines() if line.startswith("| ") and not line.startswith("| point")]
    assert [row for row in rows if "`test_" not in row] == []
