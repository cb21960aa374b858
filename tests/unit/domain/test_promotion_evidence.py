"""What history gives for a bundle's spans: the digest that training records, and a window nobody learnt from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from shared.adapters.onnx_scorer import OnnxGraph
from shared.adapters.xgboost_trainer import XgboostTrainer
from shared.domain.bundle import open_bundle
from shared.domain.feature_columns import transform_many
from shared.domain.feature_view import CARD_V1
from shared.domain.instants import US_PER_DAY
from shared.domain.promotion import GateRules
from shared.domain.promotion_evidence import (
    first_seen_us,
    labelled,
    learnt_until_us,
    places_of,
    spans_again,
    window_of,
)
from shared.domain.training_model import Rows, TrainingParameters, data_digest
from shared.domain.training_split import targets_as_of
from shared.services.training import train
from tests.fakes.bundles import golden_files, history, plan_of

DAY = US_PER_DAY


def test_history_gives_the_digest_that_training_records() -> None:
    transactions, labels = history()
    plan = plan_of(transactions)
    manifest = train(
        CARD_V1,
        transactions,
        labels,
        plan,
        trainer=XgboostTrainer(),
        load_graph=OnnxGraph,
        name="drawn",
        version=1,
        parameters=TrainingParameters(n_trees=3, max_bins=16),
    ).bundle.manifest
    targets = targets_as_of(len(transactions.event_time_us), labels, plan.as_of_us)
    places, counted = spans_again(transactions, targets, manifest.spans)
    assert counted == dict(manifest.spans)
    vectors = transform_many(CARD_V1, transactions, labels)
    rows = {name: Rows(vectors[found], targets.is_fraud[found]) for name, found in places.items()}
    assert data_digest(rows) == manifest.data_digest
    flipped = replace(rows["test"], is_fraud=~rows["test"].is_fraud)
    assert data_digest({**rows, "test": flipped}) != manifest.data_digest


def test_the_window_is_the_newest_mature_days_that_no_model_learnt_from() -> None:
    manifest = open_bundle(golden_files()).manifest
    delay_us, learnt_us = manifest.label.delay_us, learnt_until_us(manifest)
    assert learnt_us == manifest.spans["calibration"].end_us
    rules = GateRules(window_days=28, maturity_us=30 * DAY)
    as_of_us = learnt_us // DAY * DAY + 200 * DAY
    end_us = as_of_us - 30 * DAY
    assert window_of((manifest,), as_of_us, as_of_us, rules) == (end_us - 28 * DAY, end_us)
    assert window_of((manifest,), end_us - DAY - 5, as_of_us, rules)[1] == end_us - 2 * DAY  # labels end before
    newer = replace(manifest, spans={"train": replace(manifest.spans["train"], end_us=end_us - 10 * DAY)})
    assert window_of((manifest, newer), as_of_us, as_of_us, rules) == (end_us - 10 * DAY + delay_us, end_us)
    newest = replace(manifest, spans={"train": replace(manifest.spans["train"], end_us=end_us)})
    start_us, stop_us = window_of((newest, manifest), as_of_us, as_of_us, rules)
    assert start_us > stop_us  # nothing is left


def test_how_much_is_labelled_and_since_when_somebody_is_known() -> None:
    transactions, labels = history(200, days=10)
    start_us = int(transactions.event_time_us[0])
    known = np.zeros(200, dtype=np.bool_)
    known[labels.row[::2]] = True
    spans = {"all": (start_us, start_us + 20 * DAY), "none": (0, 5)}
    found = {part.name: (part.share, part.n_rows) for part in labelled(transactions, known, spans)}
    assert found == {"all": (0.5, 200), "none": (0.0, 0)}
    since = first_seen_us(transactions.customer, transactions.event_time_us)
    for row in range(200):
        same = transactions.customer == transactions.customer[row]
        assert since[row] == transactions.event_time_us[same].min()
    ordered = places_of(transactions, known, 0, start_us + 20 * DAY)
    assert (np.diff(transactions.event_time_us[ordered]) >= 0).all()
    assert known[ordered].all()
