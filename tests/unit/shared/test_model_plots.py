"""Pictures of a real bundle: all there, of one size, and the same when drawn again."""

from __future__ import annotations

import struct
from functools import cache

import numpy as np
import pytest

from shared.adapters.model_plots import DPI, SIZE_INCHES, MatplotlibPlots
from shared.domain.bundle import Bundle, open_bundle
from shared.domain.registry_rows import MeasuredRows, measured_rows
from tests.fakes.bundles import golden_files, trained_scorer

WIDTH, HEIGHT = (round(side * DPI) for side in SIZE_INCHES)


@cache
def drawn_from() -> tuple[Bundle, MeasuredRows]:
    bundle = open_bundle(golden_files())
    rng = np.random.default_rng(3)
    known = bundle.probes.vectors[np.isfinite(bundle.probes.vectors).all(axis=1)]
    vectors = known[rng.integers(0, len(known), 3_000)]
    raw = trained_scorer().score(vectors).raw
    fraud = rng.random(len(raw)) < bundle.manifest.calibration.probability_many(raw)
    return bundle, measured_rows(vectors, raw, fraud, rng.integers(100, 20_000, len(raw)))


@pytest.mark.slow
def test_all_pictures_are_drawn_and_are_the_same_again() -> None:
    pictures = MatplotlibPlots().draw(*drawn_from())
    assert set(pictures) == {"precision_recall.png", "roc.png", "calibration.png", "cost.png", "reasons.png"}
    for data in pictures.values():
        assert data.startswith(b"\x89PNG")
        assert struct.unpack(">II", data[16:24]) == (WIDTH, HEIGHT)
        assert b"Software" not in data
    assert len(set(pictures.values())) == 5
    assert MatplotlibPlots().draw(*drawn_from()) == pictures


@pytest.mark.slow
def test_outcomes_of_one_kind_and_rows_without_features_can_be_drawn() -> None:
    bundle, rows = drawn_from()
    for outcome in (False, True):
        alone = MeasuredRows(rows.raw[:1], np.array([outcome]), rows.amount_minor[:1], rows.explained[:0])
        assert "reasons.png" not in MatplotlibPlots().draw(bundle, alone)
