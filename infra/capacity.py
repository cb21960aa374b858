"""What a load needs and what it costs: the arithmetic of docs/capacity.md and docs/costs.md, in one place.

Loads are transactions per second at the peak. Everything assumed stands here as a constant with where it comes from;
prices are list prices in US dollars that nobody here could verify, so look at the ratios and ask the calculator for the
rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from infra.config import OTHER_CONNECTIONS, POSTGRES_SIZES, SYSTEM_CONNECTIONS, connections_of

MONTH_S: Final = 730 * 3600
AVERAGE_SHARE: Final = 0.4
"""Average load as a share of the peak; assumed for card traffic, which sleeps at night."""

PER_INSTANCE_TPS: Final = 300
"""Decisions per second of a score instance with one core; assumed. One local worker process decided 3,700 per second in
batches of 16 (docs/ledger.md, without HTTP); the Functions host shares the core, and most of it is left free."""
DATABASE_CPU_MS: Final = 0.11
"""Postgres CPU per decision at batches of 16, measured (docs/ledger.md)."""
DATABASE_UTILISATION: Final = 0.25
"""Share of a server's cores that decisions may take at the peak: vacuum, checkpoints and readers need the rest."""
STORED_BYTES: Final = 2_000
"""On disk per decision with indexes: transaction, decision record, tiles, log. Assumed; measure yours."""
WAL_BYTES: Final = 2_600
"""Write-ahead log per decision, measured."""
EVENT_BYTES: Final = 350
UNIT_EVENTS: Final = 1_000
UNIT_BYTES: Final = 1_000_000
"""What one throughput unit takes in per second. Source: Azure, "Event Hubs quotas and limits"."""
TELEMETRY_PER_INSTANCE: Final = 20
"""Items per second that the host's sampling lets through per instance (its default)."""
TELEMETRY_BYTES: Final = 1_000

GB_S_ON_DEMAND: Final = 0.000026
GB_S_READY_IDLE: Final = 0.000004
GB_S_READY_ACTIVE: Final = 0.000016
PER_MILLION_EXECUTIONS: Final = 0.40
PER_UNIT_MONTH: Final = 22.0
PER_MILLION_EVENTS: Final = 0.028
PER_GB_STORED: Final = 0.115
PER_GB_LOGGED: Final = 2.30
PER_PRIVATE_ENDPOINT: Final = 7.3
SERVER_MONTH: Final[dict[str, float]] = {
    "Standard_B1ms": 12.4,
    "Standard_B2s": 50.0,
    "Standard_D2ds_v5": 130.0,
    "Standard_D4ds_v5": 260.0,
    "Standard_D8ds_v5": 520.0,
    "Standard_D16ds_v5": 1040.0,
    "Standard_D32ds_v5": 2080.0,
}


@dataclass(frozen=True, slots=True)
class Load:
    """A load and the choices that go with it.

    Attributes:
        peak_tps: Transactions per second at the peak.
        days_kept: How long raw events stay in Postgres.
        private: Private endpoints, high availability, two instances always ready: the profile `prod`.
    """

    peak_tps: int
    days_kept: int
    private: bool

    @property
    def average_tps(self) -> float:
        """Mean over a month."""
        return self.peak_tps * AVERAGE_SHARE

    @property
    def millions_a_month(self) -> float:
        """Decisions per month, in millions."""
        return self.average_tps * MONTH_S / 1e6

    @property
    def instances(self) -> int:
        """Score instances at the peak."""
        return math.ceil(self.peak_tps / PER_INSTANCE_TPS)

    @property
    def partitions(self) -> int:
        """Partitions that the stream needs if everything came over it: one takes 1 MB/s, and one instance reads it."""
        by_bytes = self.peak_tps * EVENT_BYTES / UNIT_BYTES
        needed = max(1.0, by_bytes, self.peak_tps / PER_INSTANCE_TPS)
        return min(32, max(4, 1 << math.ceil(math.log2(needed))))

    @property
    def units(self) -> int:
        """Throughput units for transactions in and decisions out, as many again free."""
        events = 2 * self.peak_tps
        return max(1, math.ceil(1.5 * max(events / UNIT_EVENTS, events * EVENT_BYTES / UNIT_BYTES)))

    @property
    def server(self) -> str:
        """The smallest server whose cores and connections suffice."""
        cores = self.peak_tps * DATABASE_CPU_MS / 1000 / DATABASE_UTILISATION
        connections = connections_of(2 * (max(40, 2 * self.instances) + 2 * self.partitions))
        connections += SYSTEM_CONNECTIONS + OTHER_CONNECTIONS
        for name, size in POSTGRES_SIZES.items():
            fits = size.cores >= cores and size.connections >= connections
            if fits and not (self.private and size.tier == "Burstable"):
                return name
        return "none"

    @property
    def stored_gb(self) -> float:
        """Data in Postgres."""
        return self.average_tps * 86_400 * self.days_kept * STORED_BYTES / 1e9

    @property
    def wal_mb_s(self) -> float:
        """Write-ahead log at the peak, megabytes per second."""
        return self.peak_tps * WAL_BYTES / 1e6

    def costs(self) -> dict[str, float]:
        """US dollars per month, by part."""
        busy = max(1, math.ceil(self.average_tps / PER_INSTANCE_TPS))
        ready = 2 if self.private else 0
        idle_ready = max(0, ready - busy)
        compute = (
            min(busy, ready) * GB_S_READY_ACTIVE
            + idle_ready * GB_S_READY_IDLE
            + max(0, busy - ready) * GB_S_ON_DEMAND
            # Ingest sends the outbox and takes labels all day; drift and retrain are minutes.
            + 1.1 * GB_S_ON_DEMAND
        )
        copies = 2 if self.private else 1
        logged = min(2 * self.average_tps, TELEMETRY_PER_INSTANCE * (busy + 1)) * TELEMETRY_BYTES * MONTH_S / 1e9
        return {
            "functions, time": compute * 2 * MONTH_S,
            "functions, executions": self.millions_a_month * PER_MILLION_EXECUTIONS,
            "event hubs": self.units * PER_UNIT_MONTH + self.millions_a_month * PER_MILLION_EVENTS,
            "postgres, server": SERVER_MONTH[self.server] * copies,
            "postgres, storage": max(32.0, self.stored_gb) * PER_GB_STORED * copies,
            "logs": logged * PER_GB_LOGGED,
            "private endpoints": 11 * PER_PRIVATE_ENDPOINT if self.private else 0.0,
        }


LOADS: Final = (Load(10, 400, private=False), Load(1_000, 90, private=True), Load(10_000, 30, private=True))
"""The loads of the documents."""


def capacity_table() -> str:
    """Return the table of docs/capacity.md."""
    rows = {
        "decisions per month, millions": [f"{load.millions_a_month:,.0f}" for load in LOADS],
        "score instances at the peak": [str(load.instances) for load in LOADS],
        "partitions per hub": [str(load.partitions) for load in LOADS],
        "throughput units": [str(load.units) for load in LOADS],
        "postgres": [load.server.removeprefix("Standard_") for load in LOADS],
        "write-ahead log at the peak, MB/s": [f"{load.wal_mb_s:,.2f}" for load in LOADS],
        "days of raw events": [str(load.days_kept) for load in LOADS],
        "data in Postgres, GB": [f"{load.stored_gb:,.0f}" for load in LOADS],
    }
    return _table("at the peak", rows)


def cost_table() -> str:
    """Return the table of docs/costs.md."""
    costs = [load.costs() for load in LOADS]
    rows = {part: [f"{cost[part]:,.0f}" for cost in costs] for part in costs[0]}
    totals = [sum(cost.values()) for cost in costs]
    rows["**all, per month**"] = [f"**{total:,.0f}**" for total in totals]
    rows["**per million decisions**"] = [
        f"**{total / load.millions_a_month:,.2f}**" for total, load in zip(totals, LOADS, strict=True)
    ]
    return _table("US dollars", rows)


def _table(head: str, rows: dict[str, list[str]]) -> str:
    lines = [
        f"| {head} | " + " | ".join(f"{load.peak_tps:,} /s" for load in LOADS) + " |",
        "|---|" + "--:|" * len(LOADS),
    ]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(values)} |" for name, values in rows.items())])
