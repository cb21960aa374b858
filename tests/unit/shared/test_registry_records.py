"""What the registry is told, written and read back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from shared.domain.bundle import bundle_digest
from shared.domain.bundle_manifest import MANIFEST, read_manifest
from shared.domain.bundle_pointer import Pointer, Role
from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.domain.registry import MAX_OUTCOME, RegistryRecord, read_record, record_key, run_record, write_record
from shared.domain.registry_rows import MAX_EXPLAINED, measured_rows, read_measured_rows, write_measured_rows
from tests.fakes.bundles import golden_files

MANIFEST_BYTES = golden_files()[MANIFEST]
DIGEST = bundle_digest(MANIFEST_BYTES)
RUN = run_record(
    read_manifest(MANIFEST_BYTES),
    DIGEST,
    created_at_us=1_700_000_000_000_000,
    run_id="retrain/17",
    outcome="refused: recall floor",
    verdict_digest="ab" * 32,
)
STATES = (
    Pointer(Role.CHAMPION, DIGEST, 3, 9, "ada", "better"),
    Pointer(Role.SHADOW, None, 4, 9, "ada", "enough was seen"),
)


@pytest.mark.parametrize("record", [RUN, replace(RUN, verdict_digest="", outcome=""), *STATES])
def test_a_record_is_read_as_it_was_written(record: RegistryRecord) -> None:
    assert read_record(json.loads(json.dumps(write_record(record)))) == record


def test_a_run_says_what_its_bundle_says() -> None:
    manifest = read_manifest(MANIFEST_BYTES)
    assert (RUN.name, RUN.version, RUN.view, RUN.bundle_digest) == (
        manifest.name,
        manifest.version,
        manifest.view,
        DIGEST,
    )
    assert (RUN.metrics, RUN.spans, RUN.data_digest) == (manifest.metrics, manifest.spans, manifest.data_digest)
    assert run_record(manifest, DIGEST, created_at_us=1).run_id == f"bundle/{DIGEST}"
    assert len(run_record(manifest, DIGEST, created_at_us=1, outcome="long " * 200).outcome) == MAX_OUTCOME


def test_keys_tell_records_apart() -> None:
    assert [record_key(record) for record in (RUN, *STATES)] == ["retrain/17", "role/champion/3", "role/shadow/4"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("run_id", ""), ("bundle_digest", "ab"), ("verdict_digest", "AB" * 32), ("outcome", "x" * 501)],
)
def test_a_record_that_no_registry_would_take_is_refused(field: str, value: str) -> None:
    changed: dict[str, Any] = {field: value}
    with pytest.raises(InvalidInput, match=field):
        replace(RUN, **changed)


@pytest.mark.parametrize("document", [{}, {"run": {}}, {"role": {"role": "king"}}, {"run": 5}])
def test_what_is_no_record_is_not_read(document: dict[str, Any]) -> None:
    with pytest.raises(BrokenInvariant):
        read_record(document)


def test_a_record_whose_digest_was_damaged_is_not_read() -> None:
    document = json.loads(json.dumps(write_record(RUN)))
    document["run"]["bundle_digest"] = "ab"
    with pytest.raises(BrokenInvariant, match="bundle_digest"):
        read_record(document)


def test_of_a_test_span_all_outcomes_are_kept_and_features_of_some() -> None:
    n_rows = 3 * MAX_EXPLAINED
    vectors = np.arange(n_rows * 2, dtype=np.float32).reshape(n_rows, 2)
    fraud = np.arange(n_rows) % 7 == 0
    rows = measured_rows(vectors, np.linspace(0, 1, n_rows, dtype=np.float32), fraud, np.arange(n_rows))
    assert rows.explained.shape == (MAX_EXPLAINED, 2)
    assert (rows.explained[0].tolist(), rows.explained[-1].tolist()) == (vectors[0].tolist(), vectors[-1].tolist())
    again = read_measured_rows(write_measured_rows(rows))
    for name in ("raw", "is_fraud", "amount_minor", "explained"):
        np.testing.assert_array_equal(getattr(again, name), getattr(rows, name))


def test_few_rows_are_all_kept() -> None:
    rows = measured_rows(
        np.ones((3, 2), np.float32), np.ones(3, np.float32), np.ones(3, np.bool_), np.ones(3, np.int64)
    )
    assert rows.explained.shape == (3, 2)


def test_rows_of_different_lengths_are_refused() -> None:
    with pytest.raises(BrokenInvariant):
        measured_rows(np.ones((3, 2), np.float32), np.ones(2, np.float32), np.ones(3, np.bool_), np.ones(3, np.int64))
    with pytest.raises(BrokenInvariant):
        measured_rows(np.ones((0, 2), np.float32), np.ones(0, np.float32), np.ones(0, np.bool_), np.ones(0, np.int64))
    with pytest.raises(BrokenInvariant):
        read_measured_rows(b"")
