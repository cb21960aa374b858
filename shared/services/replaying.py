"""The use case that replays decisions: from the stored vector and the bundle it names, bit for bit.

What is replayed is everything behind the vector: the model's output, calibration, rules, policy, contributions,
reasons and the canonical bytes. Where the vector came from is `verification_decisions`'s question. Equal bits are
promised for the runtime that a decision recorded; another one is said, and so is what came out of it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import fsum
from typing import NamedTuple

import numpy as np

from shared.domain.archive import StoredDecision
from shared.domain.decision import NO_RULES, RuleSet, decide_outcome
from shared.domain.decision_record import DecisionRecord, decision_bytes, read_decision
from shared.domain.errors import BrokenInvariant, NotFound
from shared.domain.feature_view import FEATURE_DTYPE
from shared.domain.identifiers import TransactionId
from shared.domain.reasons import ranked_reasons
from shared.domain.score import Score
from shared.ports.archive import Archive
from shared.ports.models import ArchivedScorers, Scorer


class ReplayVerdict(StrEnum):
    """What a replay came to."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNCHECKED = "unchecked"


class Difference(NamedTuple):
    """A field that came out otherwise.

    Attributes:
        field: Of the decision record.
        stored: What was stored.
        replayed: What came out.
    """

    field: str
    stored: str
    replayed: str


@dataclass(frozen=True, slots=True)
class Replay:
    """One decision, decided again.

    Attributes:
        record: The stored decision; None if its bytes are none.
        verdict: Whether all of it came out again.
        differences: What came out otherwise; also under another runtime, where it proves nothing.
        obstacle: Why it could not be checked; empty if it could.
    """

    record: DecisionRecord | None
    verdict: ReplayVerdict
    differences: tuple[Difference, ...] = ()
    obstacle: str = ""


class Replaying:
    """Replays decisions."""

    def __init__(self, scorers: ArchivedScorers, rules: Sequence[RuleSet] = (NO_RULES,)) -> None:
        """Replay with these.

        Args:
            scorers: Every bundle that ever decided.
            rules: Every rule set that was ever deployed.
        """
        self._scorers = scorers
        self._rules = {item.version: item for item in rules}

    def replay(self, archive: Archive, transaction_id: TransactionId) -> tuple[StoredDecision, Replay]:
        """Replay one decision.

        Raises:
            NotFound: There is no decision for this id.
            Transient: The ledger or the bundle cannot be reached now.
        """
        with archive.snapshot() as snapshot:
            stored = snapshot.decision(transaction_id)
        if stored is None:
            raise NotFound("transaction_id", "has no decision here")
        return stored, self.replay_records([stored.record])[0]

    def replay_records(self, records: Sequence[bytes]) -> list[Replay]:
        """Replay decisions from their canonical bytes; cheapest in hundreds, because the model takes rows together.

        Raises:
            Transient: A bundle cannot be fetched now.
        """
        replays: list[Replay | None] = [None] * len(records)
        groups: dict[tuple[str, str], list[tuple[int, DecisionRecord]]] = {}
        for place, data in enumerate(records):
            try:
                record = read_decision(data)
            except BrokenInvariant as error:
                replays[place] = Replay(
                    None, ReplayVerdict.DIFFERENT, (Difference("record", "unreadable", str(error)),)
                )
                continue
            groups.setdefault((record.decision.score.bundle_digest, record.decision.rules_version), []).append(
                (place, record)
            )
        for (bundle_digest, rules_version), members in groups.items():
            found = self._replay_group(bundle_digest, rules_version, [record for _, record in members])
            for (place, _), replayed in zip(members, found, strict=True):
                replays[place] = replayed
        return [replayed for replayed in replays if replayed is not None]

    def _replay_group(self, bundle_digest: str, rules_version: str, records: list[DecisionRecord]) -> list[Replay]:
        """Replay decisions of one bundle and one rule set."""
        obstacle = ""
        scorer = None
        try:
            scorer = self._scorers.find(bundle_digest)
        except BrokenInvariant as error:
            obstacle = f"its bundle {bundle_digest[:12]} cannot be used: {error}"
        if scorer is None:
            obstacle = obstacle or f"its bundle {bundle_digest[:12]} is not kept"
            return [Replay(record, ReplayVerdict.UNCHECKED, obstacle=obstacle) for record in records]
        rules = self._rules.get(rules_version)
        if rules is None:
            obstacle = f"its rule set {rules_version} is not one that this release knows"
            return [Replay(record, ReplayVerdict.UNCHECKED, obstacle=obstacle) for record in records]
        n_bytes = len(scorer.view.features) * np.dtype(FEATURE_DTYPE).itemsize
        usable = [record for record in records if len(record.vector) == n_bytes and record.view == scorer.view.name]
        again = iter(_compared_all(scorer, rules, usable))
        replays = []
        for record in records:
            if len(record.vector) != n_bytes or record.view != scorer.view.name:
                own = f"{record.view}, {len(record.vector)} bytes"
                other = Difference("vector", own, f"{scorer.view.name}, {n_bytes} bytes")
                replays.append(Replay(record, ReplayVerdict.DIFFERENT, (other,)))
            else:
                replays.append(next(again))
        return replays


def _compared_all(scorer: Scorer, rules: RuleSet, records: list[DecisionRecord]) -> list[Replay]:
    """Replay decisions together, or one by one if a vector among them is one that no model takes."""
    try:
        replayed = _replayed(scorer, rules, records)
    except BrokenInvariant as error:
        if len(records) == 1:
            return [Replay(records[0], ReplayVerdict.DIFFERENT, (Difference("vector", "unusable", str(error)),))]
        return [_compared_all(scorer, rules, [record])[0] for record in records]
    return [_compared(record, again) for record, again in zip(records, replayed, strict=True)]


def _replayed(scorer: Scorer, rules: RuleSet, records: list[DecisionRecord]) -> list[DecisionRecord]:
    """Decide again from stored vectors, policies and versions; the rest comes from the bundle."""
    if not records:
        return []
    width = len(scorer.view.features)
    values = np.frombuffer(b"".join([record.vector for record in records]), dtype=FEATURE_DTYPE)
    vectors = values.reshape(len(records), width).astype(np.float32, copy=False)
    scored = scorer.score(vectors)
    probabilities = scorer.calibration.probability_many(scored.raw).tolist()
    raws, all_contributions = scored.raw.tolist(), scored.contributions.tolist()
    found = []
    for place, record in enumerate(records):
        contributions = all_contributions[place]
        reasons = ranked_reasons(scorer.view, contributions)
        score = Score(probabilities[place], scorer.bundle_digest)
        found.append(
            replace(
                record,
                view=scorer.view.name,
                model_name=scorer.name,
                model_version=scorer.version,
                raw_score=raws[place],
                decision=decide_outcome(
                    score,
                    record.amount_minor,
                    record.decision.policy,
                    rules,
                    view=scorer.view,
                    vector=vectors[place],
                ),
                base=scorer.base,
                reasons=reasons,
                others=fsum([*contributions, *(-reason.contribution for reason in reasons)]),
                fingerprint=scorer.fingerprint,
            )
        )
    return found


def _compared(stored: DecisionRecord, replayed: DecisionRecord) -> Replay:
    """The verdict on one decision."""
    if decision_bytes(stored) == decision_bytes(replayed):
        return Replay(stored, ReplayVerdict.EQUAL)
    before, after = _fields(stored), _fields(replayed)
    differences = tuple(
        Difference(name, before.get(name, ("", "nothing"))[1], after.get(name, ("", "nothing"))[1])
        for name in {**before, **after}
        if before.get(name, (None, ""))[0] != after.get(name, (None, ""))[0]
    )
    if stored.fingerprint != replayed.fingerprint:
        beside = tuple(item for item in differences if item.field != "fingerprint")
        rest = "all else is equal" if not beside else f"{len(beside)} fields differ, which proves nothing"
        obstacle = f"it was decided on another runtime ({stored.fingerprint.hex()[:12]}); {rest}"
        return Replay(stored, ReplayVerdict.UNCHECKED, beside, obstacle)
    return Replay(stored, ReplayVerdict.DIFFERENT, differences)


def _fields(record: DecisionRecord) -> dict[str, tuple[object, str]]:
    """The fields that replay can tell, each as its bits and as text for people."""
    decision = record.decision
    hits = [f"{hit.rule_id} {hit.outcome.value}" for hit in decision.rule_hits]
    fields: dict[str, tuple[object, str]] = {
        "view": _shown(record.view),
        "model": _shown(f"{record.model_name} {record.model_version}"),
        "raw_score": _shown(record.raw_score),
        "score": _shown(decision.score.probability),
        "bundle": _shown(decision.score.bundle_digest),
        "outcome": _shown(decision.outcome.value),
        "rules": _shown(", ".join([decision.rules_version, *hits])),
        "base": _shown(record.base),
        "others": _shown(record.others),
        "fingerprint": _shown(record.fingerprint.hex()),
    }
    for place, reason in enumerate(record.reasons, start=1):
        code = _shown(reason.contribution)
        fields[f"reason {place}"] = ((reason.code, code[0]), f"{reason.code} {code[1]}")
    return fields


def _shown(value: float | str) -> tuple[object, str]:
    """A value's bits and its text; 0.0 and -0.0 are not the same."""
    return (struct.pack(">d", value), repr(value)) if isinstance(value, float) else (value, value)
