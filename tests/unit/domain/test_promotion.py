"""Rules, checks and verdicts: what a verdict says follows from its checks, and its document cannot be bent."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from shared.domain.bundle_manifest import canonical_json
from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.domain.evaluation import Interval
from shared.domain.promotion import (
    Acceptance,
    Ceiling,
    Check,
    CheckName,
    FrontierPoint,
    GateRules,
    Verdict,
    Window,
    read_verdict,
    verdict_digest,
    write_verdict,
)


def check(name: CheckName, *, passed: bool = True) -> Check:
    return Check(name, 0.5, Interval(0.4, 0.6), "at least 0.4", passed, "it was measured")


def verdict(**changes: Any) -> Verdict:
    whole = Verdict(
        challenger="a" * 64,
        champion=None,
        model="card-fraud 7",
        as_of_us=1_700_006_400_000_000,
        rules=GateRules(),
        window=Window(0, 86_400_000_000, 100, 10, 50),
        checks=(check(CheckName.OPENS), replace(check(CheckName.SLOPE), value=None, interval=None)),
        frontier=(FrontierPoint(0.5, 0.9, 0.1, 3.5),),
        ceilings=(Ceiling(604_800_000_000, 0.6, 0.2, 0.68),),
        advice=("Label faster.",),
    )
    return replace(whole, **changes)


def test_a_verdict_passes_by_its_checks_alone() -> None:
    assert verdict().passed
    assert not verdict(checks=()).passed
    missed = verdict(checks=(check(CheckName.OPENS), check(CheckName.SLOPE, passed=False)))
    assert not missed.passed
    assert [one.name for one in missed.refusals] == [CheckName.SLOPE]
    assert not missed.promotable


def test_a_document_reads_back_to_the_verdict() -> None:
    for one in (verdict(), verdict(window=None, champion="b" * 64), verdict(floors_unreachable=True)):
        document = write_verdict(one)
        assert read_verdict(document) == one
        assert write_verdict(read_verdict(document)) == document
        assert len(verdict_digest(document)) == 64
    assert verdict_digest(write_verdict(verdict())) != verdict_digest(write_verdict(verdict(model="card-fraud 8")))


@pytest.mark.parametrize(
    "change",
    [
        {"passed": False},
        {"kind": "tollgate.bundle"},
        {"format_version": 2},
        {"checks": None},
        {"checks": [{"name": "opens"}]},
        {"rules": {"alpha": 0.9}},
        {"window": []},
        {"another": 1},
        {"acceptance": {"author": "", "reason": "x", "accepted_at_us": 1}},
    ],
    ids=str,
)
def test_a_document_that_says_something_else_is_refused(change: dict[str, Any]) -> None:
    document = json.loads(write_verdict(verdict()))
    with pytest.raises(BrokenInvariant):
        read_verdict(canonical_json(document | change))


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_document_is_refused(document: bytes) -> None:
    with pytest.raises(BrokenInvariant):
        read_verdict(document)


def test_a_document_in_another_form_is_refused() -> None:
    with pytest.raises(BrokenInvariant, match="was changed"):
        read_verdict(write_verdict(verdict()).replace(b",", b", ", 1))


def test_a_figure_that_is_not_finite_has_no_place_in_a_document() -> None:
    with pytest.raises(BrokenInvariant):
        write_verdict(verdict(checks=(replace(check(CheckName.OPENS), value=float("nan")),)))


def test_only_floors_of_a_first_champion_can_be_accepted() -> None:
    word = Acceptance("ada", "watched for a month", 1)
    floors = (check(CheckName.OPENS), check(CheckName.RECALL, passed=False), check(CheckName.PRECISION, passed=False))
    accepted = verdict(checks=floors).accepted(word)
    assert accepted.promotable
    assert not accepted.passed
    assert read_verdict(write_verdict(accepted)).acceptance == word
    for one, why in (
        (verdict(), "nothing to accept"),
        (verdict(checks=floors, champion="b" * 64), "a champion"),
        (verdict(checks=(*floors, check(CheckName.DATA, passed=False))), "training data"),
        (verdict(checks=()), "refused by"),
    ):
        with pytest.raises(InvalidInput, match=why):
            one.accepted(word)
        assert replace(one, acceptance=word).promotable == one.passed  # writing it in by hand changes nothing


@pytest.mark.parametrize(("author", "reason"), [("", "why"), (" ", "why"), ("ada", " "), ("ada", "x" * 1001)])
def test_nobody_accepts_without_a_name_and_a_reason(author: str, reason: str) -> None:
    with pytest.raises(InvalidInput):
        Acceptance(author, reason, 1)


@pytest.mark.parametrize(
    "rules",
    [
        {"alpha": 0.0},
        {"segment_alpha": 0.5},
        {"min_recall": 1.1},
        {"loss_margin": float("nan")},
        {"slope_low": 1.2},
        {"slope_high": 0.9},
        {"min_window_days": 0},
        {"window_days": 6},
        {"min_frauds": 0},
        {"resamples": 79},
        {"maturity_us": -1},
    ],
    ids=str,
)
def test_rules_by_which_nothing_can_be_judged_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        GateRules(**rules)
