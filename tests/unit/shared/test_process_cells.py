"""Counts of several processes, added up by any of them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.adapters.process_cells import ProcessCells, shared_folder
from shared.domain.errors import Transient
from shared.domain.identifiers import TransactionId
from shared.entrypoints.http_metrics import metrics
from shared.services.batching import Unit
from shared.services.metering import (
    CONFIDENCE,
    DURATION,
    FAMILIES,
    N_CELLS,
    PREDICTIONS,
    STAGE_SECONDS,
    UNITS,
    Meters,
)
from shared.services.metering_decisions import note_unit
from shared.services.scoring import Refused
from tests.fakes.counts import FakeCells

ROOT = Path(__file__).resolve().parents[3]


def test_counts_of_processes_add_up_and_outlive_them(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from shared.adapters.process_cells import ProcessCells;"
        "cells = ProcessCells(Path(sys.argv[1]), 3); cells.add(1, 2.5); cells.add(2, 1.0)"
    )
    own = ProcessCells(tmp_path, 3)
    own.add(1, 1.0)
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, timeout=120)
    assert list(own.totals()) == [0.0, 6.0, 2.0]
    assert list(ProcessCells(tmp_path, 3).totals()) == [0.0, 6.0, 2.0]
    assert list(ProcessCells(tmp_path, 4).totals()) == [0.0] * 4, "another release's cells mean something else"


def test_what_a_process_left_is_found_once_it_is_gone(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from shared.adapters.process_cells import ProcessCells;"
        "cells = ProcessCells(Path(sys.argv[1]), 3); cells.note('first'); cells.add(1, 2.5); cells.note('last');"
        "print('here', flush=True); sys.stdin.read()"
    )
    own = ProcessCells(tmp_path, 3)
    own.note("mine")
    assert own.left() == []
    own.add(0, 1.0)
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"here\n"
        assert own.left() == [], "it is there"
        other.kill()
    (left,) = own.left()
    assert (left.note, left.cells) == ("last", [0.0, 2.5, 0.0])
    assert ProcessCells(tmp_path, 3).left() == [left], "whoever looks"
    own.settle(left)
    own.settle(left)
    assert own.left() == []
    assert list(own.totals()) == [1.0, 2.5, 0.0], "what it counted is still counted"


def test_without_a_folder_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cells = ProcessCells(tmp_path / "file", 2)
    cells.note("to nobody")
    cells.add(0, 1.0)
    cells.note("to nobody")
    assert cells.left() == []
    assert list(cells.totals()) == [0.0, 0.0]


def test_folders_of_hosts_that_are_gone_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait(30)
    gone, alive, other = (tmp_path / f"tollgate-cells-score-{name}" for name in (ended.pid, os.getpid(), "x"))
    for folder in (gone, alive, other):
        folder.mkdir()
    assert shared_folder("score") == tmp_path / f"tollgate-cells-score-{os.getppid()}"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive.name, other.name])


def test_the_text_is_what_prometheus_reads(tmp_path: Path) -> None:
    meters = Meters(ProcessCells(tmp_path, N_CELLS))
    meters.count(PREDICTIONS, "decline")
    meters.record(CONFIDENCE, 0.6)  # on a bound
    meters.record(CONFIDENCE, 0.95001)
    meters.record(DURATION, 7.0, "score")  # beyond all bounds
    refused = [Refused(TransactionId(name), Transient("down")) for name in "abcdefgh"]
    note_unit(meters, Unit(refused, [0.1] * 8, {"claim": 0.5}))
    answer = metrics(meters, {"tollgate_waiting_transactions": ("Waiting.", 3.0)})
    text = answer.get_body().decode()
    lines = text.splitlines()
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'model_predictions_total{decision="decline"} 1.0' in lines
    assert 'model_prediction_confidence_bucket{le="0.55"} 0.0' in lines
    assert 'model_prediction_confidence_bucket{le="0.6"} 1.0' in lines
    assert 'model_prediction_confidence_bucket{le="0.99"} 2.0' in lines
    assert 'model_prediction_confidence_bucket{le="+Inf"} 2.0' in lines
    assert "model_prediction_confidence_count 2.0" in lines
    assert 'api_request_duration_seconds_bucket{route="score",le="5.0"} 0.0' in lines
    assert 'api_request_duration_seconds_bucket{route="score",le="+Inf"} 1.0' in lines
    assert 'api_request_duration_seconds_sum{route="score"} 7.0' in lines
    assert "tollgate_waiting_transactions 3.0" in lines
    assert sum(sample.value for sample in meters.samples(STAGE_SECONDS)) == 0.5
    assert [sample.value for sample in meters.samples(UNITS)][-2:] == [8.0, 1.0]
    assert text.endswith("\n")
    assert all(f"# TYPE {family.name} " in text for family in FAMILIES)


@given(st.lists(st.sampled_from([0.0, 0.001, 0.0011, 0.5, 5.0, 7.0])))
def test_many_values_count_as_each_of_them(values: list[float]) -> None:
    one, all_ = FakeCells(), FakeCells()
    for value in values:
        Meters(one).record(DURATION, value, "score")
    Meters(all_).record_all(DURATION, values, "score")
    assert all_.own() == pytest.approx(one.own())


def test_unknown_labels_are_a_mistake_of_ours(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        Meters(ProcessCells(tmp_path, N_CELLS)).count(PREDICTIONS, "maybe")
