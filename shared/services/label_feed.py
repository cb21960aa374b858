"""The use case that takes a list of labels from people and feeds: each row is answered on its own.

Rows that break a rule, and rows whose entities' state is damaged, are refused and hold nobody else up.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from shared.domain.errors import BrokenInvariant, InvalidInput
from shared.domain.labels import Label
from shared.services.halving import halved
from shared.services.labelling import Labelling, LabelOutcome, LabelVerdict

_log = logging.getLogger(__name__)

type LabelRow = Label | InvalidInput
"""A label, or why a row is none."""


def take_rows(labelling: Labelling, rows: Sequence[LabelRow]) -> list[LabelVerdict]:
    """Record what can be recorded, in one unit of work if nothing is damaged.

    Args:
        labelling: Records labels.
        rows: What was read, in any order.

    Returns:
        One verdict for each, in their order.

    Raises:
        Transient: Nothing, some or all of the labels may have been recorded; taking the rows again is safe.
    """
    labels = [row for row in rows if isinstance(row, Label)]
    recorded = iter(halved(labels, labelling.record, _refuse, BrokenInvariant))
    return [next(recorded) if isinstance(row, Label) else LabelVerdict(LabelOutcome.REFUSED, row) for row in rows]


def _refuse(label: Label, error: BrokenInvariant) -> LabelVerdict:
    _log.error("a label cannot be recorded", exc_info=error, extra={"transaction_id": label.transaction_id})
    return LabelVerdict(LabelOutcome.REFUSED, error)
