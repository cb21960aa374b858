"""What docs/simulator.md says about the world is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simulator.batch import TransactionBatch
from simulator.config import FraudConfig
from simulator.history import History
from simulator.incidents import HORIZON_DAYS, PER_INCIDENT
from simulator.malformed import KINDS
from simulator.wire import WireEvent

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "simulator.md").read_text(encoding="utf-8")


def test_the_example_runs() -> None:
    block = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    shorter = block.group(1).replace("5_000", "500")
    names: dict[str, object] = {}
    exec(compile(shorter, "docs/simulator.md", "exec"), names)
    batch, history, events = names["batch"], names["history"], names["events"]
    assert isinstance(batch, TransactionBatch)
    assert isinstance(history, History)
    assert isinstance(events, list)
    assert all(isinstance(sent, WireEvent) for sent in events)
    assert len(events) > len(batch) > 500


@pytest.mark.parametrize("scenario", list(PER_INCIDENT), ids=lambda scenario: scenario.name)
def test_the_table_of_scenarios_is_that_of_the_code(scenario: object) -> None:
    name = str(getattr(scenario, "name", "")).lower().replace("_", " ")
    row = re.search(rf"^\| {name} \| ([^|]*) \| (\d+) \|", PAGE, re.MULTILINE)
    assert row is not None
    shares = {kind.name.lower().replace("_", " "): f"{share:.2f}".lstrip("0") for kind, share in FraudConfig().mix}
    assert row.group(1) == shares.get(name, "to order")
    frauds = {kind.name.lower().replace("_", " "): round(count) for kind, count in PER_INCIDENT.items()}
    assert int(row.group(2)) == frauds[name]


def test_the_numbers_of_kinds_and_days_are_those_of_the_code() -> None:
    text = " ".join(PAGE.split())
    assert f"malformed bodies of {len(KINDS)} kinds" in text
    assert f"{HORIZON_DAYS} days of planned fraud" in text
