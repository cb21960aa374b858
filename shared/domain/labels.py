"""Labels: who says when that a transaction was fraud or genuine, and which of several sayings holds at a given time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shared.domain.errors import InvalidInput
from shared.domain.identifiers import TransactionId, parse_identifier
from shared.domain.instants import US_PER_DAY, format_instant, parse_instant
from shared.domain.transaction import FUTURE_TOLERANCE_US, Transaction, check_names

LABEL_TYPE: Final = "tollgate.label"
"""The `type` field of a label on the stream."""

LABEL_DELAY_US: Final = 7 * US_PER_DAY
"""How long after it was known a label counts for decisions, in microseconds (Handbook, section 3.3: 7 days)."""

MATURITY_US: Final = 30 * US_PER_DAY
"""After how long silence counts as genuine, in microseconds; part of a bundle's label definition (record 0005)."""

_FIELDS: Final = ("transaction_id", "verdict", "source", "event_time", "known_at", "confidence", "author")


class Verdict(StrEnum):
    """What a label says."""

    FRAUD = "fraud"
    GENUINE = "genuine"


class LabelSource(StrEnum):
    """Who says it; a later member of `PRECEDENCE` is believed over an earlier one."""

    MATURITY = "maturity"
    IMPORT = "import"
    CUSTOMER = "customer"
    ANALYST = "analyst"
    CHARGEBACK = "chargeback"


PRECEDENCE: Final = tuple(LabelSource)
"""From the least believed to the most: silence, imported history, the cardholder, an analyst, the bank's reversal."""


@dataclass(frozen=True, slots=True)
class Label:
    """One saying about one transaction; a later one is added beside it and never overwrites it.

    Attributes:
        transaction_id: The transaction it is about; it may arrive before the transaction does.
        verdict: What it says.
        source: Who says it.
        event_time_us: When the source came to it, microseconds since 1970 UTC.
        known_at_us: When it could be known to us, microseconds since 1970 UTC; not before `event_time_us`.
        confidence: How sure the source is, in percent, 0 to 100.
        author: The person or feed that wrote it.
    """

    transaction_id: TransactionId
    verdict: Verdict
    source: LabelSource
    event_time_us: int
    known_at_us: int
    confidence: int
    author: str

    @property
    def is_fraud(self) -> bool:
        """Whether it says fraud."""
        return self.verdict is Verdict.FRAUD

    @property
    def strength(self) -> tuple[int, int, int, bool]:
        """The conflict rule as a key: of the labels that count, the one with the greatest key holds.

        Source first (`PRECEDENCE`), then the later one (a source may change its mind: a chargeback that the merchant
        wins back), then the surer one, then fraud. Two labels with the same key say the same.
        """
        return PRECEDENCE.index(self.source), self.known_at_us, self.confidence, self.is_fraud

    def counts_at(self, time_us: int, label_delay_us: int = LABEL_DELAY_US) -> bool:
        """Whether a decision at `time_us` may use it, given that it was recorded by then.

        Both must hold: it is among the recorded events the decision knows, which the caller sees to, and known-at plus
        delay does not lie after the event time, which is tested here. The edge counts.
        """
        return self.known_at_us + label_delay_us <= time_us

    def to_fields(self) -> dict[str, object]:
        """The label as the fields of a body; the inverse of `parse_label`."""
        return {
            "transaction_id": self.transaction_id,
            "verdict": self.verdict.value,
            "source": self.source.value,
            "event_time": format_instant(self.event_time_us),
            "known_at": format_instant(self.known_at_us),
            "confidence": self.confidence,
            "author": self.author,
        }


def label_at(labels: Iterable[Label], time_us: int, label_delay_us: int = LABEL_DELAY_US) -> Label | None:
    """The label that holds for a decision at `time_us`: the strongest of those that count by then; None without one.

    It depends on the set of labels and not on their order, so that the history of what held when can be rebuilt at
    any later time.
    """
    counting = (label for label in labels if label.counts_at(time_us, label_delay_us))
    return max(counting, key=lambda label: label.strength, default=None)


def matured_label(transaction: Transaction, maturity_us: int = MATURITY_US) -> Label:
    """The label that silence makes of a transaction, see `silent_label`."""
    return silent_label(transaction.transaction_id, transaction.event_time_us, maturity_us)


def silent_label(transaction_id: TransactionId, event_time_us: int, maturity_us: int = MATURITY_US) -> Label:
    """The label that silence makes: genuine, known once the maturity period is over.

    A timer records it for a transaction that was approved and has no label by then. It has the lowest precedence, so a
    late chargeback still overrules it. Declined transactions have no natural outcome and must not be given one.

    Args:
        transaction_id: The transaction it is about.
        event_time_us: When that happened, microseconds since 1970 UTC.
        maturity_us: How long nobody said anything, microseconds.
    """
    matured_at_us = event_time_us + maturity_us
    return Label(
        transaction_id,
        Verdict.GENUINE,
        LabelSource.MATURITY,
        matured_at_us,
        matured_at_us,
        confidence=50,
        author="maturity",
    )


def parse_label(fields: Mapping[str, object], now_us: int) -> Label:
    """Read a label from the fields of a body.

    Args:
        fields: The fields.
        now_us: Our clock; nothing can be known later than that, up to the tolerance for clocks out of step.

    Raises:
        InvalidInput: Names the first field that is unknown, missing, or breaks its rule.
    """
    check_names(fields, _FIELDS, LABEL_TYPE)
    event_time_us = parse_instant("event_time", fields["event_time"])
    known_at_us = parse_instant("known_at", fields["known_at"])
    if known_at_us < event_time_us:
        raise InvalidInput("known_at", "must not lie before event_time")
    if known_at_us > now_us + FUTURE_TOLERANCE_US:
        raise InvalidInput("known_at", f"must not lie more than {FUTURE_TOLERANCE_US // 1_000_000} s in the future")
    confidence = fields["confidence"]
    if isinstance(confidence, bool) or not isinstance(confidence, int) or not 0 <= confidence <= 100:
        raise InvalidInput("confidence", "must be a whole number of percent, 0 to 100")
    return Label(
        transaction_id=TransactionId(parse_identifier("transaction_id", fields["transaction_id"])),
        verdict=_member(Verdict, "verdict", fields["verdict"]),
        source=_member(LabelSource, "source", fields["source"]),
        event_time_us=event_time_us,
        known_at_us=known_at_us,
        confidence=confidence,
        author=parse_identifier("author", fields["author"]),
    )


def _member[E: StrEnum](kind: type[E], field: str, value: object) -> E:
    if isinstance(value, str) and value in {member.value for member in kind}:
        return kind(value)
    raise InvalidInput(field, "must be one of " + ", ".join(member.value for member in kind))
