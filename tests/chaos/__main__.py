"""`python -m tests.chaos [--seeds N] [--first SEED]`: many seeds, one line each; exit code 1 if any promise broke."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import prepared, run


def main() -> None:
    """Run seeds one after the other on one server of their own."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds (default 20)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--transactions", type=int, default=3000, help="transactions per seed (default 3000)")
    parser.add_argument("--writers", type=int, default=3, help="writers per seed (default 3)")
    chosen = parser.parse_args()
    broken = []
    with tempfile.TemporaryDirectory(prefix="tollgate-chaos-") as home, prepared(Path(home)) as server:
        for seed in range(chosen.first, chosen.first + chosen.seeds):
            outcome = run(server, seed, Path(home), n_transactions=chosen.transactions, n_writers=chosen.writers)
            print(f"chaos: {outcome}", flush=True)
            if outcome.problems:
                broken.append(seed)
    if broken:
        print(f"chaos: broken promises in seeds {broken}; run one again with --first SEED --seeds 1", flush=True)
        sys.exit(1)
    print(f"chaos: every promise held in {chosen.seeds} seeds", flush=True)


if __name__ == "__main__":
    main()
