"""A retrain app by itself, for tests that kill it: `python -m tests.integration.retraining_worker DSN`.

Its one training says `training` and then takes a minute.
"""

from __future__ import annotations

import sys
import time

from shared.services.retraining import RetrainingOutcome
from shared.services.retraining_lease import HeldLease
from tests.integration.retraining_app import retraining


def main(dsn: str) -> None:
    """Answer the open trigger, slowly."""

    def work(run_id: str, now_us: int, lease: HeldLease) -> RetrainingOutcome:
        print(run_id, flush=True)
        until_s = time.monotonic() + 60
        while time.monotonic() < until_s:
            lease.check()
            time.sleep(0.05)
        return RetrainingOutcome("it was not killed", now_us, {})

    with retraining(dsn, "killed", work) as app:
        app.poll()


if __name__ == "__main__":
    main(sys.argv[1])
