"""A run of the maturing timer in a process of its own, in small pieces, to be killed: `DSN NOW_US`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from shared.adapters.postgres import parse_postgres
from shared.adapters.postgres_ledger_pipelined import PipelinedLedger
from shared.adapters.postgres_maturing import PostgresSilentTransactions
from shared.adapters.postgres_pipelines import PostgresPipelineLog
from shared.adapters.postgres_session import PostgresSession
from shared.domain.labels import Label
from shared.services.labelling import Labelling, LabelVerdict
from shared.services.maturing import EVERY_US, PIPELINE, Maturing
from shared.services.timed_runs import TimedRuns
from tests.fakes.probes import FakeClock
from tests.unit.shared.test_scoring import KEYS


class Slow(Labelling):
    """Records label by label and takes its time, so that there is a middle to be killed in."""

    def record(self, labels: Sequence[Label]) -> list[LabelVerdict]:
        found: list[LabelVerdict] = []
        for label in labels:
            found += super().record([label])
            time.sleep(0.02)
        return found


if __name__ == "__main__":
    where = parse_postgres("DATABASE", {"DATABASE": sys.argv[1]})
    clock, session = FakeClock(int(sys.argv[2])), PostgresSession(where, "killed")
    log = PostgresPipelineLog(session)
    slow = Slow(PipelinedLedger(where, "killed"), KEYS, clock)
    TimedRuns(log, clock, "killed").run(
        PIPELINE, EVERY_US, Maturing(PostgresSilentTransactions(session), slow, log, clock).mature
    )
