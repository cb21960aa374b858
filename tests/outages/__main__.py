"""`python -m tests.outages [--away SECONDS]`: outages of minutes on a twin of its own, one line each."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.conftest import twin_settings
from tests.e2e.conftest import Twin
from tests.outages.run import ALL, run
from tests.outages.scene import with_champion


def main() -> None:
    """Play every outage once."""
    parser = argparse.ArgumentParser(prog="python -m tests.outages", description=__doc__)
    parser.add_argument("--away", type=float, default=120, help="how long each is away, seconds (default 120)")
    parser.add_argument("--steady", type=float, default=15, help="traffic before each, seconds (default 15)")
    parser.add_argument("--rate", type=float, default=50, help="events a second (default 50)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tollgate-outages-") as home:
        twin = Twin(twin_settings(Path(home) / "state"))
        try:
            with_champion(twin)
            tell = lambda line: print(f"outages: {line}", flush=True)  # noqa: E731 - a name for a print
            run(twin, ALL, steady_s=chosen.steady, away_s=chosen.away, rate=chosen.rate, tell=tell)
        finally:
            twin.run("down", code=None)
    print(f"outages: nothing lost in {len(ALL)}", flush=True)


if __name__ == "__main__":
    main()
