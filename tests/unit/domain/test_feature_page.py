"""The page about features says what the definition says."""

from __future__ import annotations

from pathlib import Path

from shared.domain.feature_view import CARD_V1
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import PRECEDENCE

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "features.md").read_text(encoding="utf-8")


def days(time_us: int) -> str:
    return f"{time_us // US_PER_DAY} d" if time_us else "-"


def test_the_table_is_the_view() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "| `" in line and line[2].isdigit()]
    expected = [
        f"| {place} | `{item.name}` | {item.measure} | {item.entity or '-'} | {days(item.window_us)} "
        f"| {days(item.lag_us)} | {item.unit} | {item.null} |"
        for place, item in enumerate(CARD_V1.features)
    ]
    assert rows == expected


def test_every_measure_that_needs_words_has_them() -> None:
    section = PAGE.split("## Measures")[1].split("## ")[0]
    for feature in CARD_V1.features:
        if feature.entity is not None:
            assert feature.measure in section


def test_the_conflict_rule_names_the_sources_in_order() -> None:
    assert ", ".join(source.value for source in reversed(PRECEDENCE)) in " ".join(PAGE.split())
