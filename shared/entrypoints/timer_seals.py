"""The timer that seals the log: where the chains end is written down outside the database, every minute."""

from __future__ import annotations

import logging
from typing import Final

import azure.functions as func

from shared.domain.pipeline import Evidence
from shared.ports.archive import SealedLedger, Seals
from shared.ports.clock import Clock
from shared.services import sealing
from shared.services.timed_runs import TimedRuns
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)

PIPELINE: Final = "sealing"


def make(timer: func.TimerRequest, ledger: SealedLedger, seals: Seals, clock: Clock, runs: TimedRuns) -> None:
    """Seal what moved. A failure is raised: the host shows it, and the next minute makes up for it.

    Raises:
        Transient: The database or the container cannot be reached now.
        BrokenInvariant: A stored seal was damaged, or a right is missing.
    """

    def work() -> Evidence:
        done = sealing.seal(ledger, seals, clock)
        for head in done.fallen:
            _log.error(with_fields("the log ends before its seal", writer=head.writer, sequence=head.sequence))
        if done.seal is not None:
            _log.info(
                with_fields("log sealed", seal=done.seal.number, heads=len(done.seal.heads), past_due=timer.past_due)
            )
        return {"heads": len(done.seal.heads) if done.seal else 0, "fallen": len(done.fallen)}

    runs.sample(PIPELINE, work)
