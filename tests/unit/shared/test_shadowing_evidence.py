"""What a tried model would have changed: counted by hand on few decisions, and against scikit-learn on many."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score  # type: ignore[import-untyped]  # it has no types

from shared.domain.decision import Decision, Outcome, Policy, RuleHit
from shared.domain.decision_record import DecisionRecord, decision_bytes, read_decision
from shared.domain.instants import US_PER_DAY
from shared.domain.score import Score
from shared.domain.surrogates import Surrogate
from shared.ports.shadowing import Place, ShadowScore
from shared.services import shadowing_evidence
from shared.services.scoring import Decided
from shared.services.shadowing_evidence import ShadowEvidence, Worth, shadow_evidence
from tests.contract.ledger_stores import scoring
from tests.fakes.ledger import FakeLedger
from tests.fakes.shadowing import FakeShadowScores
from tests.unit.domain.worlds import BASE_US, label, transaction

TRIED = "d" * 64
CHAMPION = "c" * 64
POLICY = Policy(0.3, 0.8)
NOW_US = BASE_US + 200 * US_PER_DAY


def template() -> DecisionRecord:
    (verdict,) = scoring(FakeLedger()).decide([transaction(1, 0)])
    assert isinstance(verdict, Decided)
    return verdict.record


class Rows:
    """Decisions of a champion beside the scores of another model."""

    def __init__(self) -> None:
        self.scores = FakeShadowScores()
        self._template = template()

    def add(
        self, mine: float, other: float, *, day: float = 1, fraud: bool | None = None, hits: tuple[RuleHit, ...] = ()
    ) -> None:
        number = len(self.scores.decisions)
        item = transaction(number, round(day * US_PER_DAY) + number)
        score = Score(mine, CHAMPION)
        outcome = max([POLICY.outcome(score), *(hit.outcome for hit in hits)], key=list(Outcome).index)
        record = replace(
            self._template,
            transaction_id=item.transaction_id,
            customer=Surrogate(f"customer-{number % 40}"),
            event_time_us=item.event_time_us,
            decision=Decision(outcome, score, POLICY, "rules-0", hits),
        )
        place = Place(item.event_time_us, item.transaction_id)
        self.scores.decisions[place] = decision_bytes(record), 1
        self.scores.put(TRIED, [ShadowScore(place, other, other)], 1)
        if fraud is not None:
            self.scores.labels.append(label(item, fraud=fraud, known_after_us=US_PER_DAY))

    def evidence(self, **changes: int) -> ShadowEvidence:
        bounds = {"start_us": 0, "end_us": NOW_US, "as_of_us": NOW_US, **changes}
        return shadow_evidence(self.scores, TRIED, CHAMPION, **bounds)


def test_no_decision_is_no_evidence() -> None:
    found = Rows().evidence()
    assert (found.n_rows, found.n_mature, found.worth, found.gain) == (0, 0, None, None)
    assert math.isnan(found.agreement)
    assert found.document()["agreement"] is None


def test_agreement_and_differences_count_what_would_have_been_decided() -> None:
    rows = Rows()
    for mine, other in ((0.1, 0.2), (0.1, 0.9), (0.1, 0.3), (0.9, 0.5), (0.8, 0.8)):
        rows.add(mine, other)
    found = rows.evidence()
    assert found.changed == {"approve to decline": 1, "approve to review": 1, "decline to review": 1}
    assert found.agreement == pytest.approx(2 / 5)
    assert found.mean_difference == pytest.approx((0.1 + 0.8 + 0.2 - 0.4 + 0.0) / 5)
    assert found.largest_difference == pytest.approx(0.8)
    assert found.n_mature == 0


def test_rules_hold_for_the_tried_model_too() -> None:
    rows = Rows()
    rows.add(0.1, 0.05, hits=(RuleHit("r1", Outcome.REVIEW),))
    assert rows.evidence().agreement == 1.0


def test_only_mature_labels_count() -> None:
    rows = Rows()
    rows.add(0.9, 0.9, day=1, fraud=True)
    rows.add(0.1, 0.1, day=1, fraud=False)
    rows.add(0.9, 0.1, day=190, fraud=True)
    rows.add(0.9, 0.1, day=1)
    found = rows.evidence()
    assert (found.n_rows, found.n_mature, found.n_frauds) == (4, 2, 1)
    assert found.champion_worth == Worth(1.0, 1.0, 1.0, 1.0)
    assert rows.evidence(as_of_us=BASE_US + US_PER_DAY).n_mature == 0


def test_outcomes_of_one_kind_tell_nothing_of_worth() -> None:
    rows = Rows()
    rows.add(0.9, 0.9, fraud=True)
    found = rows.evidence()
    assert (found.n_mature, found.n_frauds, found.worth, found.gain) == (1, 1, None, None)


def test_worth_agrees_with_scikit_learn_and_the_gain_is_paired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadowing_evidence, "PAGE", 97)
    rng = np.random.default_rng(5)
    fraud = rng.random(600) < 0.2
    mine = np.round(np.clip(0.35 * fraud + rng.random(600) * 0.6, 0, 1), 2)
    other = np.round(np.clip(0.60 * fraud + rng.random(600) * 0.4, 0, 1), 2)
    rows = Rows()
    for one, two, is_fraud in zip(mine.tolist(), other.tolist(), fraud.tolist(), strict=True):
        rows.add(one, two, fraud=is_fraud)
    found = rows.evidence()
    assert (found.n_rows, found.n_mature, found.n_frauds) == (600, 600, int(fraud.sum()))
    for scores, worth in ((mine, found.champion_worth), (other, found.worth)):
        assert worth is not None
        declined = scores >= POLICY.decline_threshold
        assert worth.average_precision == pytest.approx(average_precision_score(fraud, scores))
        assert worth.auc == pytest.approx(roc_auc_score(fraud, scores))
        assert worth.precision == pytest.approx(fraud[declined].mean())
        assert worth.recall == pytest.approx(declined[fraud].mean())
    assert found.worth is not None
    assert found.champion_worth is not None
    assert found.gain == found.worth.average_precision - found.champion_worth.average_precision
    assert found.gain_interval is not None
    assert 0 < found.gain_interval.low < found.gain < found.gain_interval.high
    assert found == rows.evidence()
    document = found.document()
    assert isinstance(document["worth"], dict)
    assert document["worth"]["recall"] == found.worth.recall


def test_a_model_that_is_the_champion_itself_gains_nothing() -> None:
    rows = Rows()
    for number in range(60):
        rows.add(number / 60, number / 60, fraud=number % 3 == 0)
    found = rows.evidence()
    assert (found.agreement, found.gain) == (1.0, 0.0)
    assert found.gain_interval == (0.0, 0.0)
    assert read_decision(next(iter(rows.scores.decisions.values()))[0]).decision.outcome is Outcome.APPROVE
