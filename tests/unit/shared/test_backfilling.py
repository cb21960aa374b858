"""Why a second feature view does not decide: entity state is that of one view, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.adapters.bundle_scorers import BundleScorers
from shared.adapters.file_bundles import FileBundles
from shared.adapters.onnx_scorer import OnnxScorer
from shared.domain.bundle_pointer import Role
from shared.domain.entity_state_codec import read_header
from shared.domain.errors import BrokenInvariant, Transient
from shared.domain.feature_view import CARD_V1, FeatureView
from shared.domain.instants import US_PER_DAY
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


def test_a_second_view_cannot_read_the_state_of_the_first() -> None:
    ledger = FakeLedger()
    (first,) = scoring(ledger).decide([transaction(1, 0)])
    assert isinstance(first, Decided)
    try:
        found = scoring(ledger, FixedScorers(LinearScorer("second", 2, SECOND))).decide([transaction(2, US_PER_DAY)])
    except BrokenInvariant as error:
        problem = error
    else:
        (refused,) = found
        assert isinstance(refused, Refused)
        assert isinstance(refused.error, BrokenInvariant)
        problem = refused.error
    assert "card-v1" in str(problem)
    assert "card-v2" in str(problem)
    (again,) = scoring(ledger).decide([transaction(2, US_PER_DAY)])
    assert isinstance(again, Decided)


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
