"""Which views may decide: by what is kept of their definition and of how far back state is complete."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.domain.entity_state_layout import BASE_LAYOUT, Span
from shared.domain.feature_view import CARD_V1, HANDBOOK_V1, VIEWS, Entity, Feature, FeatureView, Measure, Null
from shared.domain.instants import US_PER_DAY
from shared.domain.kept_view import (
    KeptView,
    ViewStatus,
    complete_layout,
    declared_layout,
    definition_digest,
    why_changed,
    why_refused,
)
from shared.domain.labels import LABEL_DELAY_US

COUNT = Feature(
    "terminal_count_60d", Measure.COUNT, "transactions", Null.ZERO, Entity.TERMINAL, 60 * US_PER_DAY, LABEL_DELAY_US
)
LONG = FeatureView("long-v1", (*HANDBOOK_V1.features, COUNT))


def kept(view: FeatureView, status: ViewStatus = ViewStatus.COMPLETE, **changes: object) -> KeptView:
    return replace(KeptView.of(view, status, 5), **changes)  # type: ignore[arg-type]  # any field


def test_released_definitions_stay_what_they_are() -> None:
    assert {name: definition_digest(view) for name, view in VIEWS.items()} == {
        "handbook-v1": "cf8a88ea2ff1df6951e49febc668047ed7c5f364e796bb48683368c8097cceac",
        "card-v1": "b70797e945693b4ef9719e99e131b8177177c467cded6e72e9cc56931f4d1335",
    }


@pytest.mark.parametrize(
    "changed",
    [
        replace(LONG, name="long-v2"),
        replace(LONG, label_delay_us=LABEL_DELAY_US + 1),
        replace(LONG, features=LONG.features[:-1]),
        replace(LONG, features=LONG.features[::-1]),
        *(
            replace(LONG, features=(*LONG.features[:-1], replace(COUNT, **change)))
            for change in (
                {"name": "other"},
                {"measure": Measure.FRAUD_RATE},
                {"null": Null.NAN},
                {"entity": Entity.CUSTOMER},
                {"window_us": 61 * US_PER_DAY},
                {"lag_us": LABEL_DELAY_US + 1},
            )
        ),
    ],
)
def test_whatever_changes_a_value_changes_the_digest(changed: FeatureView) -> None:
    assert definition_digest(changed) != definition_digest(LONG)


def test_a_unit_is_a_word_for_people() -> None:
    worded = replace(LONG, features=(*LONG.features[:-1], replace(COUNT, unit="events")))
    assert definition_digest(worded) == definition_digest(LONG)


def test_views_within_what_is_kept_may_decide_without_anything_kept_of_them() -> None:
    assert why_refused(CARD_V1, []) == why_refused(HANDBOOK_V1, []) == ""
    assert complete_layout([]) == declared_layout([]) == BASE_LAYOUT


def test_one_that_looks_further_back_decides_once_it_is_complete() -> None:
    assert why_refused(LONG, []) == (
        "it needs 74 days of a terminal, of which 44 days are kept: tollgate views backfill long-v1"
    )
    for status in (ViewStatus.DECLARED, ViewStatus.FILLING):
        half = kept(LONG, status, entities=1234)
        assert "44 days are kept; " + status + ", 1,234 entities done" in why_refused(LONG, [half])
        assert complete_layout([half]) == BASE_LAYOUT
        assert declared_layout([half]).terminal == Span("long-v1", 74 * US_PER_DAY)
        assert declared_layout([half]).customer == BASE_LAYOUT.customer
    assert why_refused(LONG, [kept(LONG)]) == ""


def test_what_another_view_had_filled_serves_all_that_need_no_more() -> None:
    shorter = FeatureView("shorter-v1", (replace(COUNT, window_us=50 * US_PER_DAY),))
    assert why_refused(shorter, [kept(LONG)]) == ""
    longer = FeatureView("longer-v1", (replace(COUNT, window_us=61 * US_PER_DAY),))
    assert "75 days of a terminal, of which 74 days are kept" in why_refused(longer, [kept(LONG)])


def test_another_definition_under_a_kept_name_is_refused() -> None:
    changed = replace(LONG, features=(*LONG.features[:-1], replace(COUNT, window_us=US_PER_DAY)))
    assert "its definition is not the one that was kept" in why_refused(changed, [kept(LONG)])
    assert why_changed(changed, [kept(LONG)]) == why_refused(changed, [kept(LONG)])
    assert why_changed(LONG, [kept(LONG), kept(CARD_V1)]) == why_changed(changed, [kept(CARD_V1)]) == ""
    assert why_refused(CARD_V1, [kept(CARD_V1, definition="0" * 64)]) != ""
