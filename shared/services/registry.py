"""The use case that brings queued records to the model registry, and puts off what it cannot take now.

A record waits for as long as the registry is down: attempts are bounded at each firing, not in time. Only one process
writes at a time, under a lease, so that a run is not made twice; a writer that was killed is followed by the next one,
and every write may be repeated.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from shared.domain.bundle import open_bundle
from shared.domain.bundle_manifest import MANIFEST, read_manifest
from shared.domain.bundle_pointer import Pointer
from shared.domain.errors import NotFound, TollgateError, Transient
from shared.domain.instants import US_PER_HOUR, US_PER_MINUTE
from shared.domain.pipeline import Evidence, error_words
from shared.domain.registry import RunRecord, read_record, run_record
from shared.ports.clock import Clock
from shared.ports.models import BundleStore
from shared.ports.pipelines import Leases
from shared.ports.registry import MeasuredRowStore, ModelPlots, ModelRegistry, WaitingRecord, WaitingRecords

_log = logging.getLogger(__name__)

LEASE: Final = "registry"
LEASE_US: Final = 10 * US_PER_MINUTE
LONGEST_FIRING_US: Final = 5 * US_PER_MINUTE
"""No record is begun later, so that the last one ends under the lease; a record takes seconds, with a slow registry a
few minutes."""

MAX_RECORDS: Final = 20
"""Records of one firing."""

FIRST_WAIT_US: Final = US_PER_MINUTE
LONGEST_WAIT_US: Final = US_PER_HOUR
"""A record is tried again after 1, 2, 4, ... minutes, and at least hourly: a registry that comes back is noticed."""


@dataclass(frozen=True, slots=True)
class RegistryParts:
    """What records are brought by.

    Attributes:
        records: The queue.
        registry: Where they go.
        bundles: Where their files are.
        rows: What their pictures are drawn from.
        plots: Draws them.
        leases: Decide who writes.
        clock: Decides what is due.
        holder: Names this process among those that want the lease.
    """

    records: WaitingRecords
    registry: ModelRegistry
    bundles: BundleStore
    rows: MeasuredRowStore
    plots: ModelPlots
    leases: Leases
    clock: Clock
    holder: str


def write_waiting(parts: RegistryParts) -> Evidence:
    """Bring what is due to the registry, the oldest first.

    A record that it refuses, or whose bundle is gone, is put off and does not hold up the others. When it cannot be
    reached, the firing ends: every other record would only wait for the same timeout.

    Returns:
        `written`, `put_off` and `waiting`: how many records.

    Raises:
        Transient: The queue cannot be reached now.
    """
    started_us = parts.clock.now_us()
    if not parts.leases.acquire(LEASE, parts.holder, started_us, LEASE_US):
        return {"written": 0, "put_off": 0, "waiting": parts.records.count()}
    written = put_off = 0
    try:
        for waiting in parts.records.due(started_us, MAX_RECORDS):
            if parts.clock.now_us() - started_us >= LONGEST_FIRING_US:
                break
            try:
                _write(parts, waiting)
            except TollgateError as error:
                put_off += 1
                _put_off(parts, waiting, error)
                if isinstance(error, Transient):
                    break
            else:
                written += 1
                parts.records.settle(waiting.number)
    finally:
        parts.leases.release(LEASE, parts.holder)
    return {"written": written, "put_off": put_off, "waiting": parts.records.count()}


def _write(parts: RegistryParts, waiting: WaitingRecord) -> None:
    record = read_record(waiting.document)
    if isinstance(record, Pointer):
        try:
            parts.registry.give(record)
        except NotFound:  # of the registry: this bundle was made without a record
            if record.digest is None:
                raise
            manifest = read_manifest(parts.bundles.manifest(record.digest))
            _write_run(parts, run_record(manifest, record.digest, created_at_us=record.changed_at_us))
            parts.registry.give(record)
    else:
        _write_run(parts, record)


def _write_run(parts: RegistryParts, record: RunRecord) -> None:
    if parts.registry.has(record):
        return
    files = parts.bundles.get(record.bundle_digest)
    bundle = open_bundle(files, record.bundle_digest)
    rows = parts.rows.get(record.bundle_digest)
    plots = parts.plots.draw(bundle, rows) if rows is not None else {}
    parts.registry.write(record, {name: files[name] for name in (MANIFEST, *bundle.manifest.files)}, plots)


def _put_off(parts: RegistryParts, waiting: WaitingRecord, error: TollgateError) -> None:
    wait_us = min(LONGEST_WAIT_US, FIRST_WAIT_US << min(waiting.attempts, 10))
    parts.records.put_off(waiting.number, parts.clock.now_us() + wait_us, error_words(error))
    level = logging.WARNING if isinstance(error, Transient) else logging.ERROR
    _log.log(level, "a record of the model registry was put off", exc_info=error)
