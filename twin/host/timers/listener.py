"""A timer trigger: fires on schedule in exactly one of an app's host processes.

The process that holds the function's lock fires; the others ask for the lock again and again, so that they take over
when its holder is gone (a killed holder's lease runs out by itself). With `use_monitor` the schedule's status is kept
in storage: an occurrence that passed while nobody ran is made up for once, as past due.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from azure.core.exceptions import AzureError

from twin.host.attempts import run_attempts
from twin.host.bindings import Function, TimerTrigger
from twin.host.generation import Attempt, Generation, Result
from twin.host.protos import TypedData
from twin.host.timers.payload import ScheduleStatus, timer_json
from twin.host.timers.store import TimerStore

if TYPE_CHECKING:
    from azure.storage.blob.aio import BlobLeaseClient

log = logging.getLogger(__name__)

# How often an instance without the lock asks for it.
LOCK_PAUSE_S = 2.0
# The wall clock may be set while a timer waits, so no wait is longer than this.
LONGEST_NAP_S = 20.0


def _now() -> datetime:
    return datetime.now(UTC)


class TimerListener:
    """Fires one timer function."""

    def __init__(self, generation: Generation, function: Function) -> None:
        if not isinstance(function.trigger, TimerTrigger):
            raise TypeError(f"{function.name} has no timer trigger")
        self._generation = generation
        self._function = function
        self._trigger = function.trigger
        self._schedule = function.trigger.schedule
        self._lock_s = generation.hostjson.listener_lock_s
        self._store = TimerStore(generation.connections.blobs(), generation.host_id, function.name)
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._chance = random.Random()
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether storage has answered: this process fires, or knows that another one does."""
        return self._ready

    async def start(self) -> None:
        """Begin; trouble with storage is retried for ever and logged."""
        self._task = asyncio.create_task(self._run(), name=f"timer {self._function.name}")

    async def stop(self, grace_s: float) -> None:
        """Let a run in flight end, then release the lock."""
        self._stopping.set()
        if self._task is None:
            return
        await asyncio.wait({self._task}, timeout=grace_s)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._ready = False

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._store.prepare()
                lease = await self._store.try_lock(self._lock_s)
                self._ready = True
                if lease is not None:
                    await self._hold(lease)
            except AzureError as problem:
                log.warning("'Functions.%s': storage: %s", self._function.name, problem)
            except Exception:
                log.exception("'Functions.%s': the timer broke and begins again", self._function.name)
            await self._nap(LOCK_PAUSE_S)

    async def _hold(self, lease: BlobLeaseClient) -> None:
        """Fire for as long as the lock is held."""
        log.info("'Functions.%s' fires from this instance", self._function.name)
        firing = asyncio.create_task(self._fire_on_schedule())
        renewing = asyncio.create_task(self._renew(lease))
        try:
            await asyncio.wait({firing, renewing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (firing, renewing):
                task.cancel()
            results = await asyncio.gather(firing, renewing, return_exceptions=True)
            with contextlib.suppress(AzureError):
                await lease.release()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _renew(self, lease: BlobLeaseClient) -> None:
        """Keep the lock; returns when it is lost."""
        held_until = time.monotonic() + self._lock_s
        while time.monotonic() < held_until:
            await asyncio.sleep(self._lock_s / 3)
            asked = time.monotonic()
            try:
                await lease.renew()
                held_until = asked + self._lock_s
            except AzureError as problem:
                log.warning("'Functions.%s': the lock was not renewed: %s", self._function.name, problem)
                if getattr(problem, "status_code", None) in {404, 409, 412}:
                    break
        log.warning("'Functions.%s': another instance may fire from now on", self._function.name)

    async def _fire_on_schedule(self) -> None:
        """Fire at start if that is due or wanted, then at every occurrence until told to stop."""
        status = await self._store.read() if self._trigger.use_monitor else None
        past_due = False
        if status is not None:
            due = self._schedule.after(status.last or status.last_updated)
            past_due = due <= _now()
            if not past_due and due != status.following:  # the schedule was changed
                status = ScheduleStatus(status.last, due, _now())
                await self._store.write(status)
        elif self._trigger.use_monitor:
            status = ScheduleStatus(None, self._schedule.after(_now()), _now())
            await self._store.write(status)
        if past_due or self._trigger.run_on_startup:
            status = await self._fire(_now(), status, past_due=past_due)
        while not self._stopping.is_set():
            due = self._schedule.after(_now()) if status is None else status.following
            await self._nap_until(due)
            if self._stopping.is_set():
                return
            status = await self._fire(due, status, past_due=False)

    async def _fire(self, due: datetime, status: ScheduleStatus | None, *, past_due: bool) -> ScheduleStatus:
        """Run the function once and note it; returns the new status, whose next occurrence lies in the future."""
        text = timer_json(past_due=past_due, status=status if self._trigger.use_monitor else None, adjust_for_dst=True)
        value = TypedData(json=text)

        async def invoke(attempt: Attempt) -> Result:
            return await self._generation.invoke(self._function, [(self._trigger.name, value)], attempt=attempt)

        ended = await run_attempts(self._function, invoke, self._stopping, self._chance)
        now = _now()
        after = ScheduleStatus(due, self._schedule.after(max(due, now)), now)
        if ended and self._trigger.use_monitor:
            await self._note(after)
        return after

    async def _note(self, status: ScheduleStatus) -> None:
        """Store the status; while storage is away the timer goes on, and only a restart would fire again."""
        try:
            await self._store.write(status)
        except AzureError as problem:
            log.warning("'Functions.%s': the schedule status was not stored: %s", self._function.name, problem)

    async def _nap_until(self, due: datetime) -> None:
        while not self._stopping.is_set() and (left := (due - _now()).total_seconds()) > 0:
            await self._nap(min(left, LONGEST_NAP_S))

    async def _nap(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
