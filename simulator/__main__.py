"""Write days of a synthetic world to files: `python -m simulator --days 90 --customers 5000 --seed 7 --out FOLDER`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np

from simulator.batch import TransactionBatch
from simulator.changes import date_of
from simulator.config import FraudConfig, WorldConfig
from simulator.errors import BadOrder
from simulator.exports import Form, export
from simulator.world import World


def arguments() -> argparse.ArgumentParser:
    """The command's arguments."""
    defaults = WorldConfig()
    parser = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for transactions, labels and truth")
    parser.add_argument("--days", type=int, default=90, help="how many days (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="same seed, same bytes (default: %(default)s)")
    parser.add_argument("--customers", type=int, default=defaults.customers, help="default: %(default)s")
    parser.add_argument("--merchants", type=int, default=defaults.merchants, help="default: %(default)s")
    parser.add_argument(
        "--fraud-rate", type=float, default=defaults.fraud.rate, help="share of transactions (default: %(default)s)"
    )
    parser.add_argument(
        "--first-date",
        type=date.fromisoformat,
        default=defaults.first_date,
        metavar="YYYY-MM-DD",
        help="default: %(default)s",
    )
    parser.add_argument("--currency", default=defaults.currency, help="default: %(default)s")
    parser.add_argument(
        "--form", choices=[form.value for form in Form], default=Form.PARQUET.value, help="default: %(default)s"
    )
    return parser


def main(given: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0, or 2 for an order that makes no sense.
    """
    parser = arguments()
    chosen = parser.parse_args(given)
    if chosen.days < 1 or chosen.seed < 0:
        parser.error("--days must be at least 1 and --seed at least 0")
    try:
        config = WorldConfig(
            first_date=chosen.first_date,
            customers=chosen.customers,
            merchants=chosen.merchants,
            currency=chosen.currency,
            fraud=FraudConfig(rate=chosen.fraud_rate),
        )
    except BadOrder as error:
        parser.error(str(error))
    started = time.monotonic()
    world = World.create(config, np.random.default_rng(chosen.seed))
    done, frauds, shown = 0, 0, 0.0

    def progress(batch: TransactionBatch) -> None:
        nonlocal done, frauds, shown
        done += len(batch)
        frauds += int(batch.is_fraud.sum())
        now = time.monotonic()
        if now - shown >= 1.0:
            shown = now
            sys.stderr.write(f"{date_of(batch.day)}: {done:,} transactions, {frauds:,} frauds\n")

    rows = export(world, 0, chosen.days, chosen.out, form=Form(chosen.form), progress=progress)
    for name, count in rows.items():
        sys.stdout.write(f"{chosen.out / name}: {count:,} rows\n")
    seconds = time.monotonic() - started
    sys.stdout.write(f"{done:,} transactions, {frauds / max(1, done):.2%} fraud, in {seconds:.1f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
