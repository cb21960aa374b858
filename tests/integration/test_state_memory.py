"""A process that decides takes no more memory than its bound for states lets it, however many entities it meets."""

from __future__ import annotations

import json
import subprocess
import sys

from shared.adapters.schema.grants import Role
from tests.conftest import MigratedDatabase
from tests.host.hosting import ROOT

BOUND = 1 << 20
ROUNDS = 6
COUNT = 1_000
LEAST_STATE = 1_100
"""Bytes that the state of a customer with one transaction takes at the least."""


def test_memory_stands_still_while_ever_new_entities_come(migrated_database: MigratedDatabase) -> None:
    dsn = migrated_database.role_dsn(Role.INGEST)
    arguments = [dsn, str(BOUND), str(ROUNDS), str(COUNT)]
    command = [sys.executable, "-m", "tests.integration.state_memory_worker", *arguments]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    rounds = [json.loads(line) for line in said.splitlines()]
    assert len(rounds) == ROUNDS
    for after in rounds:
        assert 0.9 * BOUND < after["counted"] <= BOUND
    warm, last = rounds[1]["resident"], rounds[-1]["resident"]
    unbounded = (ROUNDS - 2) * COUNT * LEAST_STATE
    assert last - warm < unbounded / 3, f"{(last - warm) / 1e6:.1f} MB more, of {unbounded / 1e6:.1f} MB of states"
