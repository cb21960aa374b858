"""Timers around probes: send one, and forget old receipts."""

from __future__ import annotations

import logging
import uuid
from typing import Final

import azure.functions as func

from shared.domain.instants import US_PER_HOUR
from shared.domain.pipeline import Evidence
from shared.ports.clock import Clock
from shared.ports.probes import ProbeReceipts
from shared.services import probing
from shared.services.timed_runs import TimedRuns
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)

SENDING: Final = "probes"
FORGETTING: Final = "probe receipts"


def send(timer: func.TimerRequest, outgoing: func.Out[str], clock: Clock, runs: TimedRuns) -> None:
    """Send one probe through the output binding.

    A failure of the binding cannot be seen here, and need not be: a probe that gets lost is what probes are for.
    """

    def work() -> Evidence:
        probe_id = uuid.uuid4().hex
        outgoing.set(probing.compose(probe_id, clock))
        _log.info(with_fields("probe sent", probe_id=probe_id, past_due=timer.past_due))
        return {}

    runs.sample(SENDING, work)


def forget(timer: func.TimerRequest, receipts: ProbeReceipts, clock: Clock, runs: TimedRuns) -> None:
    """Drop receipts that are older than the retention."""

    def work() -> Evidence:
        dropped = probing.forget(receipts, clock)
        _log.info(with_fields("probe receipts forgotten", dropped=dropped, past_due=timer.past_due))
        return {"rows": dropped}

    runs.run(FORGETTING, US_PER_HOUR, work)
