"""How often rules of data quality alarm for nothing: `python -m tests.feeds [SEEDS [CARDHOLDERS]]` or `... FILE`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from shared.domain.data_quality import RuleCheck
from tests.feeds.simulated import false_alarms, of_file, watched


def feeds(arguments: list[str]) -> Iterator[tuple[str, list[list[RuleCheck]]]]:
    """What is looked at, by name, with what the rules say of its hours."""
    if arguments and not arguments[0].isdecimal():
        yield arguments[0], of_file(Path(arguments[0]))
        return
    seeds, customers = (
        int(arguments[place]) if len(arguments) > place else usual for place, usual in enumerate((20, 3_000))
    )
    for seed in range(seeds):
        yield f"{customers} cardholders, seed {seed}", watched(seed, customers=customers)


if __name__ == "__main__":
    whole: Counter[str] = Counter()
    told = hours = broken = 0
    for name, of_hours in feeds(sys.argv[1:]):
        failed, notices = false_alarms(of_hours)
        whole.update(failed)
        told += notices
        hours += len(of_hours)
        broken += sum(check.breaks for checks in of_hours for check in checks)
        print(f"{name}: {notices} notices in {len(of_hours)} hours, failed {failed}", flush=True)
    print(
        f"{hours} quiet hours: {told / hours * 336:.2f} notices per 336 hours, {sum(whole.values())} failed checks"
        f" {dict(whole)}, {broken} of them called the feed broken"
    )
