"""How many transactions per CPU second the vectorised features take, beside the Handbook's own method.

Input is the Handbook file where it is there (`TOLLGATE_HANDBOOK`, by default beside the repository), else a synthetic
set of the same size; a figure's note says which. The Handbook's method is rolling windows of pandas per customer and
per terminal, run here on some of the customers and terminals; where pandas is not installed, the figure measured for
it elsewhere is shown and marked so. Correctness is checked in the same run: plain loops for some entities, bit for bit.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Report
from shared.domain.feature_columns import LabelColumns, TransactionColumns, transform_many
from shared.domain.feature_view import CARD_V1, HANDBOOK_V1, FeatureView
from shared.domain.instants import US_PER_DAY, US_PER_HOUR

ROOT: Final = Path(__file__).resolve().parents[1]
DEFAULT: Final = ROOT.parent / "shared" / "data" / "handbook" / "transactions.parquet"
BOOK_PER_CPU_S: Final = 16_200
"""The Handbook's method in pandas on one core, measured on 1.75 M transactions; the issue's figure of comparison."""
SYNTHETIC_ROWS: Final = 1_504_628
BOOK_ENTITIES: Final = 150
CHECKED_ENTITIES: Final = 12

type Ints = NDArray[np.int64]


def run() -> Report:
    """The figures."""
    report = Report("features")
    columns, labels, source = load()
    n_rows = len(columns.event_time_us)
    report.add("transactions", n_rows, "rows", note=source)
    for view, times in ((HANDBOOK_V1, 30), (CARD_V1, 5)):
        rate = n_rows / cpu_s(view, columns, labels)
        note = (
            f"{len(view.features)} features; aim: {times} times the Handbook's method at {BOOK_PER_CPU_S:,} per CPU s"
        )
        report.add(view.name, rate, "tx per CPU s", aim=times * BOOK_PER_CPU_S, note=note)
    versioned, versioned_labels, late = with_versions(columns, labels)
    rate = n_rows / cpu_s(CARD_V1, versioned, versioned_labels)
    note = f"each row knows what its entity versions say; {late:.1%} of the events arrive late, labels up to 5 days"
    report.add("card-v1 with versions", rate, "tx per CPU s", aim=5 * BOOK_PER_CPU_S, note=note)
    add_book(report, columns, labels)
    differing = differences(columns, labels)
    note = f"all features of the transactions of {CHECKED_ENTITIES} customers and terminals, by plain loops"
    report.add("values that differ from a recomputation", differing, "values", aim=0, better="lower", note=note)
    add_memory(report, n_rows)
    return report


def load() -> tuple[TransactionColumns, LabelColumns, str]:
    """The columns, and where they come from."""
    path = Path(os.environ.get("TOLLGATE_HANDBOOK", DEFAULT))
    if path.exists() and importlib.util.find_spec("pyarrow") is not None:
        return (*_handbook(path), "the Handbook's published transactions, 157 days")
    return (*_synthetic(SYNTHETIC_ROWS), "SYNTHETIC: the Handbook file or pyarrow is not here")


def _handbook(path: Path) -> tuple[TransactionColumns, LabelColumns]:
    parquet: Any = importlib.import_module("pyarrow.parquet")
    names = ["TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD"]
    table = parquet.read_table(path, columns=names)
    number, moment, customer, terminal, amount, fraud = (table[name].to_numpy() for name in names)
    event_time_us = moment.astype("datetime64[us]").astype(np.int64)
    amount_minor = np.maximum(1, np.rint(amount * 100).astype(np.int64))  # the file has a few amounts of nought
    columns = TransactionColumns(number, event_time_us, amount_minor, customer, terminal)
    return columns, _labels(event_time_us, fraud == 1)


def _synthetic(n_rows: int) -> tuple[TransactionColumns, LabelColumns]:
    rng = np.random.default_rng(20181)
    event_time_us = np.sort(rng.integers(0, 157 * 86_400, n_rows)) * 1_000_000 + 1_522_540_800_000_000
    columns = TransactionColumns(
        np.arange(n_rows),
        event_time_us,
        rng.lognormal(8.3, 0.8, n_rows).astype(np.int64) + 1,
        rng.integers(0, 5_000, n_rows),
        rng.integers(0, 10_000, n_rows),
    )
    return columns, _labels(event_time_us, rng.random(n_rows) < 0.0083)


def _labels(event_time_us: Ints, is_fraud: NDArray[np.bool_]) -> LabelColumns:
    """One label each, known when the transaction happened, so that the label delay is all the delay there is."""
    n_rows = len(event_time_us)
    analyst, sure = np.full(n_rows, 3, dtype=np.int8), np.full(n_rows, 100, dtype=np.int8)
    return LabelColumns(np.arange(n_rows), is_fraud, event_time_us, analyst, sure)


def cpu_s(view: FeatureView, columns: TransactionColumns, labels: LabelColumns) -> float:
    """CPU seconds of one whole transformation."""
    started = time.process_time()
    transform_many(view, columns, labels)
    return time.process_time() - started


def with_versions(columns: TransactionColumns, labels: LabelColumns) -> tuple[TransactionColumns, LabelColumns, float]:
    """The same data with entity versions, as a stream would have made them, and the share of late events."""
    rng = np.random.default_rng(20182)
    n_rows = len(columns.event_time_us)
    late = rng.random(n_rows) < 0.01
    arrival_us = columns.event_time_us + late * rng.integers(0, US_PER_DAY, n_rows)
    recorded_us = labels.known_at_us + rng.integers(0, 5 * US_PER_DAY, len(labels.row))
    moments = np.concatenate([arrival_us, recorded_us])

    def versions(entity: NDArray[Any]) -> tuple[Ints, Ints]:
        owner = np.concatenate([entity, entity[labels.row]])
        order = np.lexsort((moments, owner))
        version = np.empty(len(order), dtype=np.int64)
        version[order] = np.arange(1, len(order) + 1)  # rising per entity is all that counts
        return version[:n_rows], version[n_rows:]

    customer, customer_labels = versions(columns.customer)
    terminal, terminal_labels = versions(columns.terminal)
    return (
        replace(columns, customer_version=customer, terminal_version=terminal),
        replace(labels, customer_version=customer_labels, terminal_version=terminal_labels),
        float(late.mean()),
    )


def add_book(report: Report, columns: TransactionColumns, labels: LabelColumns) -> None:
    """The Handbook's method, and how far its values are from ours."""
    if importlib.util.find_spec("pandas") is None:
        note = "NOT measured here (pandas is not installed): measured elsewhere on one core"
        report.add("the Handbook's method, pandas", BOOK_PER_CPU_S, "tx per CPU s", note=note)
        return
    rate, difference = _book(columns, labels)
    note = f"rolling windows per entity, on {BOOK_ENTITIES} customers and {BOOK_ENTITIES} terminals of this run"
    report.add("the Handbook's method, pandas", rate, "tx per CPU s", note=note)
    note = "binary32 against pandas' running sums in binary64"
    report.add("greatest relative difference to it", difference, "", aim=1e-6, better="lower", note=note)


def _book(columns: TransactionColumns, labels: LabelColumns) -> tuple[float, float]:
    pandas: Any = importlib.import_module("pandas")
    fraud = np.zeros(len(columns.event_time_us))
    fraud[labels.row] = labels.is_fraud
    frame = pandas.DataFrame(
        {
            "moment": columns.event_time_us.astype("datetime64[us]"),
            "customer": columns.customer,
            "terminal": columns.terminal,
            "amount": columns.amount_minor.astype(np.float64),
            "fraud": fraud,
        }
    )
    few_customers = frame[frame.customer.isin(np.unique(columns.customer)[:BOOK_ENTITIES])]
    few_terminals = frame[frame.terminal.isin(np.unique(columns.terminal)[:BOOK_ENTITIES])]
    found: dict[str, Any] = {}
    seconds = 0.0

    started = time.process_time()
    found["is_weekend"] = few_customers.moment.apply(lambda moment: int(moment.weekday() >= 5))
    found["is_night"] = few_customers.moment.apply(lambda moment: int(moment.hour <= 6))
    seconds += (time.process_time() - started) / len(few_customers)

    # As the book does it: sort the group, index it by time, add each window as a column made of a list, index it back.
    def of_customer(rows: Any) -> Any:
        rows = rows.sort_values("moment")
        index = rows.index
        rows.index = rows.moment
        for days in (1, 7, 30):
            total = rows.amount.rolling(f"{days}D").sum()
            count = rows.amount.rolling(f"{days}D").count()
            rows[f"customer_count_{days}d"] = list(count)
            rows[f"customer_mean_amount_{days}d"] = list(total / count)
        rows.index = index
        return rows

    def of_terminal(rows: Any) -> Any:
        rows = rows.sort_values("moment")
        index = rows.index
        rows.index = rows.moment
        delay_frauds, delay_count = rows.fraud.rolling("7D").sum(), rows.fraud.rolling("7D").count()
        for days in (1, 7, 30):
            frauds = rows.fraud.rolling(f"{7 + days}D").sum() - delay_frauds
            count = rows.fraud.rolling(f"{7 + days}D").count() - delay_count
            rows[f"terminal_count_{days}d"] = list(count)
            rows[f"terminal_fraud_rate_{days}d"] = list(frauds / count)
        rows.index = index
        return rows.fillna(0)

    for few, key, method in ((few_customers, "customer", of_customer), (few_terminals, "terminal", of_terminal)):
        started = time.process_time()
        made = few.groupby(key, group_keys=False)[["moment", "amount", "fraud"]].apply(method)
        seconds += (time.process_time() - started) / len(few)
        found |= {name: made[name] for name in HANDBOOK_V1.names if name in made}
    ours = transform_many(HANDBOOK_V1, columns, labels)
    difference = 0.0
    for name, values in found.items():
        mine = ours[values.index, HANDBOOK_V1.names.index(name)].astype(np.float64)
        difference = max(difference, float(np.max(np.abs(mine - values) / np.maximum(1, np.abs(mine)))))
    return 1 / seconds, difference


def differences(columns: TransactionColumns, labels: LabelColumns) -> int:
    """Values of some entities' rows that plain loops over their own rows do not give, bit for bit."""
    ours = transform_many(CARD_V1, columns, labels)
    fraud = np.zeros(len(columns.event_time_us), dtype=np.bool_)
    fraud[labels.row] = labels.is_fraud
    wrong = 0
    for keys, recompute in ((columns.customer, _customer_again), (columns.terminal, _terminal_again)):
        for key in np.unique(keys)[:CHECKED_ENTITIES]:
            rows = np.flatnonzero(keys == key)
            rows = rows[np.lexsort((columns.transaction_id[rows], columns.event_time_us[rows]))]
            events = list(
                zip(
                    columns.event_time_us[rows].tolist(),
                    columns.amount_minor[rows].tolist(),
                    fraud[rows].tolist(),
                    strict=True,
                )
            )
            for place, row in enumerate(rows):
                for name, value in recompute(events, place).items():
                    mine = ours[row, CARD_V1.names.index(name)]
                    wrong += mine.tobytes() != np.float32(value).tobytes()
    return wrong


type Events = list[tuple[int, int, bool]]


def _customer_again(events: Events, place: int) -> dict[str, float]:
    """A customer's features once more, from (time, amount, fraud) in order; labels are known after 7 days."""
    now, amount, _ = events[place]
    before = events[:place]
    found: dict[str, float] = {
        "amount": amount,
        "is_weekend": (now // US_PER_DAY + 3) % 7 in (5, 6),
        "is_night": now // US_PER_HOUR % 24 < 7,
    }
    for days in (1, 7, 30):
        sums = [other for moment, other, _ in before if moment > now - days * US_PER_DAY] + [amount]
        found[f"customer_count_{days}d"] = len(sums)
        found[f"customer_mean_amount_{days}d"] = sum(sums) / len(sums)
    amounts = sorted(other for moment, other, _ in before if moment > now - 30 * US_PER_DAY)
    middle = len(amounts) // 2
    twice = amounts[middle] + amounts[-middle - 1] if amounts else 0
    recent = [(moment, other) for moment, other, _ in before] + [(now, amount)]
    for days in (1, 7, 14):
        inside = [other for moment, other in recent if moment > now - days * US_PER_DAY]
        found[f"customer_outliers_{days}d"] = sum(4 * other > 5 * twice for other in inside) if amounts else 0
    found["amount_to_median_30d"] = 2 * amount / twice if amounts else np.nan
    found["customer_largest_to_median_14d"] = 2 * max(inside) / twice if amounts else np.nan
    known = [(moment, other, bad) for moment, other, bad in before if moment <= now - 7 * US_PER_DAY]
    genuine = [other for moment, other, bad in known if not bad and moment > now - 97 * US_PER_DAY]
    found["amount_to_genuine_mean_90d"] = amount * len(genuine) / sum(genuine) if genuine else np.nan
    found["customer_known_frauds_30d"] = sum(bad for moment, _, bad in known if moment > now - 37 * US_PER_DAY)
    return found


def _terminal_again(events: Events, place: int) -> dict[str, float]:
    """A terminal's features once more."""
    now = events[place][0]
    known = [(moment, bad) for moment, _, bad in events[:place] if moment <= now - 7 * US_PER_DAY]
    found: dict[str, float] = {}
    for days in (1, 7, 30):
        inside = [(moment, bad) for moment, bad in known if moment > now - (7 + days) * US_PER_DAY]
        found[f"terminal_count_{days}d"] = len(inside)
        found[f"terminal_fraud_rate_{days}d"] = sum(bad for _, bad in inside) / len(inside) if inside else 0.0
    run = 0
    while run < len(inside) and inside[-1 - run][1]:
        run += 1
    found["terminal_last_label"] = float(inside[-1][1]) if inside else np.nan
    found["terminal_fraud_run"] = run
    found["terminal_fraud_run_age"] = (now - inside[-run][0]) / US_PER_DAY if run else np.nan
    return found


def add_memory(report: Report, n_rows: int) -> None:
    """Peak memory in a process of its own, where no other benchmark has left its peak."""
    command = [sys.executable, "-m", "benchmarks.bench_features"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    measured = json.loads(result.stdout)
    note = (
        f"loaded columns and interpreter: {measured['loaded_mb']:.0f} MB; output alone: {n_rows * 25 * 4 / 1e6:.0f} MB"
    )
    report.add("card-v1, peak resident memory", measured["peak_mb"], "MB", aim=1_000, better="lower", note=note)


def _peak_mb() -> float:
    """This process's own peak; `getrusage` would also count what the parent had before it became this program."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    loaded = load()
    before_mb = _peak_mb()
    transform_many(CARD_V1, loaded[0], loaded[1])
    print(json.dumps({"loaded_mb": before_mb, "peak_mb": _peak_mb()}))
