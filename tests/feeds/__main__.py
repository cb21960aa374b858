"""How often the rules of data quality alarm for nothing: `python -m tests.feeds [SEEDS] [CUSTOMERS]`."""

from __future__ import annotations

import sys
from collections import Counter

from tests.feeds.simulated import false_alarms, watched

if __name__ == "__main__":
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    customers = int(sys.argv[2]) if len(sys.argv) > 2 else 3_000
    whole: Counter[str] = Counter()
    told = hours = broken = 0
    for seed in range(seeds):
        watched_hours = watched(seed, customers=customers)
        failed, notices = false_alarms(watched_hours)
        whole.update(failed)
        told += notices
        hours += len(watched_hours)
        broken += sum(check.breaks for checks in watched_hours for check in checks)
        print(f"seed {seed}: {notices} notices, failed {failed}", flush=True)
    print(
        f"{hours} quiet hours, {customers} cardholders: {told / hours * 336:.2f} notices per 336 hours,"
        f" {sum(whole.values())} failed checks {dict(whole)}, {broken} of them called the feed broken"
    )
