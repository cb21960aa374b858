"""Labels: who says what when, how often they are wrong, and that the product accepts each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.domain.instants import US_PER_DAY, US_PER_HOUR
from shared.domain.labels import PRECEDENCE, LabelSource, label_at, parse_label
from simulator.batch import AUTHORS, LabelBatch, key_of
from simulator.config import FraudConfig, LabelConfig, WorldConfig
from simulator.errors import BadOrder
from simulator.world import World

CONFIG = WorldConfig(customers=3_000, merchants=1_000, fraud=FraudConfig(rate=0.02))
DAYS = 60
PLACE = {source: PRECEDENCE.index(source) for source in LabelSource}


class Labelled:
    """Two months, their labels, and the truth of each label's transaction."""

    def __init__(self, labels: LabelConfig) -> None:
        world = World.create(replace(CONFIG, labels=labels), np.random.default_rng(5))
        batches = list(world.days(0, DAYS))
        self.labels = LabelBatch.joined([world.labels_of(day) for day in range(DAYS)])
        key = np.concatenate([batch.key for batch in batches])
        order = np.argsort(key)
        row = order[np.searchsorted(key[order], self.labels.key)]
        self.is_fraud = np.concatenate([batch.is_fraud for batch in batches])
        self.row = row
        self.truth = self.is_fraud[row]
        self.happened_us = np.concatenate([batch.event_time_us for batch in batches])[row]

    def of(self, source: LabelSource) -> NDArray[np.bool_]:
        said: NDArray[np.bool_] = self.labels.source == PLACE[source]
        return said

    def days(self, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Delay from the transaction to when its label was known, in days."""
        days: NDArray[np.float64] = (self.labels.known_at_us - self.happened_us)[chosen] / US_PER_DAY
        return days


@pytest.fixture(scope="module")
def usual() -> Labelled:
    return Labelled(LabelConfig())


def test_the_product_accepts_every_label(usual: Labelled) -> None:
    for label in usual.labels.take(np.arange(0, len(usual.labels), 7)).labels():
        assert parse_label(label.to_fields(), label.known_at_us) == label


def test_analysts_take_hours_to_days_and_are_mostly_right(usual: Labelled) -> None:
    analyst = usual.of(LabelSource.ANALYST)
    days = usual.days(analyst)
    assert 0.5 < np.median(days) < 1.0
    assert days.max() < 7.1
    wrong = (usual.labels.is_fraud != usual.truth)[analyst]
    assert 0.02 < wrong.mean() < 0.04
    assert (~usual.labels.is_fraud[analyst]).sum() > 500
    assert {AUTHORS[author] for author in usual.labels.author[analyst]} == set(AUTHORS[:-2])


def test_reviews_go_where_it_looks_suspicious(usual: Labelled) -> None:
    analyst = usual.of(LabelSource.ANALYST)
    reviewed = np.zeros(len(usual.is_fraud), dtype=np.bool_)
    reviewed[usual.row[analyst]] = True
    assert 0.35 < reviewed[usual.is_fraud].mean() < 0.6
    assert 0.001 < reviewed[~usual.is_fraud].mean() < 0.006


def test_cardholders_call_after_days(usual: Labelled) -> None:
    calls = usual.of(LabelSource.CUSTOMER) & usual.truth
    assert 2.5 < np.median(usual.days(calls)) < 4.0
    assert calls.sum() / usual.is_fraud.sum() == pytest.approx(0.94 * 0.62, abs=0.03)


def test_chargebacks_come_weeks_later_in_a_daily_feed(usual: Labelled) -> None:
    feed = usual.of(LabelSource.CHARGEBACK)
    assert (usual.labels.known_at_us[feed] % US_PER_DAY == 5 * US_PER_HOUR).all()
    first = feed & usual.truth & usual.labels.is_fraud
    days = usual.days(first)
    assert 22 < np.median(days) < 28
    assert days.min() > 3
    assert first.sum() / usual.is_fraud.sum() == pytest.approx(0.94 * 0.72, abs=0.03)


def test_some_fraud_is_never_found_out(usual: Labelled) -> None:
    silent = np.ones(len(usual.is_fraud), dtype=np.bool_)
    silent[usual.row] = False
    assert 0.08 < silent[usual.is_fraud].mean() < 0.2


def test_disputes_contradict_and_the_conflict_rule_settles_them(usual: Labelled) -> None:
    feed = usual.of(LabelSource.CHARGEBACK)
    friendly = feed & ~usual.truth
    won = friendly & ~usual.labels.is_fraud
    assert (friendly & usual.labels.is_fraud).sum() > 50
    assert 0.3 < won.sum() / (friendly & usual.labels.is_fraud).sum() < 0.6
    assert (feed & usual.truth & ~usual.labels.is_fraud).sum() > 20
    for key in usual.labels.key[won][:20].tolist():
        said = list(usual.labels.take(usual.labels.key == key).labels())
        assert {label.is_fraud for label in said} == {True, False}
        settled = label_at(said, 2**62)
        assert settled is not None
        assert not settled.is_fraud
        assert key_of(settled.transaction_id) == key


def test_mistaken_reports_are_taken_back() -> None:
    labelled = Labelled(LabelConfig(customer_mistake=0.002, friendly_fraud=0.0))
    called = labelled.of(LabelSource.CUSTOMER) & ~labelled.truth
    said, taken_back = called & labelled.labels.is_fraud, called & ~labelled.labels.is_fraud
    assert said.sum() == taken_back.sum() > 300
    assert sorted(labelled.row[said].tolist()) == sorted(labelled.row[taken_back].tolist())


def test_settings_are_obeyed_to_the_end() -> None:
    perfect = LabelConfig(
        silent=0.0, customer_fraud=1.0, chargeback_fraud=1.0, friendly_fraud=0.0, won_back_fraud=0.0,
        customer_mistake=0.0, analyst_error=0.0,
    )  # fmt: skip
    labelled = Labelled(perfect)
    assert (labelled.labels.is_fraud == labelled.truth).all()
    for source in (LabelSource.CUSTOMER, LabelSource.CHARGEBACK):
        assert labelled.of(source).sum() == labelled.is_fraud.sum()
    nobody = replace(perfect, silent=1.0, review_genuine=0.0)
    assert len(Labelled(nobody).labels) == 0


@pytest.mark.parametrize("wrong", [{"silent": 1.1}, {"analyst_days": (0.0, 1.0)}, {"chargeback_days": (24.0, 3.0)}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadOrder, match="labels"):
        replace(LabelConfig(), **wrong)  # type: ignore[arg-type]  # wrong on purpose
