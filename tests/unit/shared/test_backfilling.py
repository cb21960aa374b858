"""Which feature views decide: those that entity state reaches back far enough for."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.adapters.bundle_scorers import BundleScorers
from shared.adapters.file_bundles import FileBundles
from shared.adapters.onnx_scorer import OnnxScorer
from shared.domain.bundle_pointer import Role
from shared.domain.entity_state_codec import read_header
from shared.domain.errors import BrokenInvariant, Transient
from shared.domain.feature_view import CARD_V1, Entity, Feature, FeatureView, Measure, Null
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import LABEL_DELAY_US
from shared.services.backfilling import COMPLETE_VIEWS
from shared.services.scoring import Decided, Refused
from shared.services.training_publication import publish
from tests.contract.ledger_stores import scoring
from tests.fakes.bundles import golden_files
from tests.fakes.ledger import FakeLedger
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers, LinearScorer
from tests.unit.domain.worlds import transaction

SECOND = FeatureView("card-v2", CARD_V1.features[:3])
FURTHER = FeatureView(
    "further-v1",
    (
        *CARD_V1.features[:3],
        Feature("count", Measure.COUNT, "transactions", Null.ZERO, Entity.TERMINAL, 60 * US_PER_DAY, LABEL_DELAY_US),
    ),
)


def test_a_second_view_reads_the_state_that_reaches_back_far_enough_for_it() -> None:
    ledger = FakeLedger()
    scoring(ledger).decide([transaction(1, 0)])
    second = FixedScorers(LinearScorer("second", 2, SECOND))
    (found,) = scoring(ledger, second).decide([transaction(2, US_PER_DAY)])
    assert isinstance(found, Decided)
    assert found.record.view == SECOND.name
    (again,) = scoring(ledger).decide([transaction(3, 2 * US_PER_DAY)])
    assert isinstance(again, Decided)


def test_one_that_looks_further_back_is_refused_and_changes_nothing() -> None:
    ledger = FakeLedger()
    scoring(ledger).decide([transaction(1, 0)])
    further = FixedScorers(LinearScorer("further", 3, FURTHER))
    (refused,) = scoring(ledger, further).decide([transaction(2, US_PER_DAY)])
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, BrokenInvariant)
    assert "complete for" in str(refused.error)
    (decided,) = scoring(ledger).decide([transaction(2, US_PER_DAY)])
    assert isinstance(decided, Decided)


def test_so_a_bundle_of_it_is_not_served_and_says_why(tmp_path: Path) -> None:
    store = FileBundles(tmp_path)
    publish(store, golden_files(), Role.CHAMPION, clock=FakeClock(), author="ada", reason="because")
    served = BundleScorers(store, OnnxScorer, views=COMPLETE_VIEWS)
    assert served.refresh()
    refused = BundleScorers(store, OnnxScorer, views={SECOND.name})
    assert not refused.refresh()
    with pytest.raises(Transient, match="entity state of the feature view card-v1 is not complete"):
        refused.current()


def test_the_complete_view_is_the_one_that_state_is_folded_for() -> None:
    ledger = FakeLedger()
    scoring(ledger).decide([transaction(1, 0)])
    headers = [stored.header for stored in ledger.tables.entities.values() if stored.header is not None]
    assert {read_header(header)[0].view for header in headers} == COMPLETE_VIEWS
