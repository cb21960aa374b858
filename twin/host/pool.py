"""The worker processes of an app: start them, share the work, replace the dead."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from twin.host.errors import BrokenApp, WorkerLost
from twin.host.ipc import ChannelClosed, Json, Payload
from twin.host.loads import Loads
from twin.host.workerproc import Answer, Shared, WorkerOrder, WorkerProcess, cause_of

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
# A worker that lived this long had a good start; the next death begins again with the shortest pause.
GOOD_LIFE_S = 30.0
# How long an invocation waits for a worker when all of them are being replaced.
NO_WORKER_PATIENCE_S = 60.0


class Pool:
    """The workers of one generation of an app.

    Args:
        order: What workers are started with.
        count: How many.
        listening: The socket that they share.
        answer: Answers what workers ask (outputs, admin).
        label: Prefix of the workers' names.
    """

    def __init__(self, order: WorkerOrder, count: int, listening: socket.socket, answer: Answer, label: str) -> None:
        self._order = order
        self._count = count
        self._shared = Shared(listening, Loads.create(count))
        self._answer = answer
        self._label = label
        self._orders: Json = {}
        self._workers: list[WorkerProcess | None] = [None] * count
        self._keepers: list[asyncio.Task[None]] = []
        self._turn = itertools.count()
        self._someone_ready = asyncio.Event()

    @property
    def all_ready(self) -> bool:
        """Whether every worker serves."""
        return all(worker is not None and worker.ready for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return [worker.pid for worker in self._workers if worker is not None]

    async def load(self) -> Sequence[Mapping[str, Any]]:
        """Start all workers and return the app's functions as they found them.

        Raises:
            BrokenApp: a worker could not import the app, or the app uses extensions that are not supported; the
                caller ends the others.
        """
        self._workers = list(await asyncio.gather(*(self._start(slot) for slot in range(self._count))))
        found = await asyncio.gather(*(worker.loaded() for worker in self._workers if worker is not None))
        extensions = found[0]["extensions"]
        if extensions:
            raise BrokenApp([f"the app imports {', '.join(extensions)}: extensions are not supported by this host"])
        functions: Sequence[Mapping[str, Any]] = found[0]["functions"]
        return functions

    async def serve(self, orders: Json) -> None:
        """Let the workers answer requests, and replace any that dies from now on."""
        self._orders = orders
        for slot, worker in enumerate(self._workers):
            if worker is not None:
                with contextlib.suppress(ChannelClosed):  # it died since; its keeper sees that
                    await worker.serve(orders)
                    self._someone_ready.set()
            self._keepers.append(asyncio.create_task(self._keep(slot)))

    async def invoke(self, body: Json, blobs: Sequence[bytes]) -> Payload:
        """Run a function on the next worker in turn.

        Raises:
            WorkerLost: the worker died meanwhile, or none came up within a minute.
        """
        worker = await self._next_ready()
        return await worker.invoke(body, blobs)

    async def close(self) -> None:
        """Stop accepting connections."""
        await asyncio.gather(*(worker.close() for worker in self._workers if worker is not None))

    async def drain(self, grace_s: float) -> None:
        """End all workers, each after what it runs, at most `grace_s` seconds from now."""
        await self._stop_keeping()
        abandoned = await asyncio.gather(*(worker.drain(grace_s) for worker in self._workers if worker is not None))
        self._shared.loads.close()
        if any(abandoned):
            log.warning("%d invocations were cut off at the end of the grace period", sum(abandoned))

    async def kill(self) -> None:
        """End all workers at once."""
        await self._stop_keeping()
        for worker in self._workers:
            if worker is not None and worker.process.returncode is None:
                worker.process.kill()
        await asyncio.gather(*(worker.end() for worker in self._workers if worker is not None))
        self._shared.loads.close()

    async def _stop_keeping(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def _start(self, slot: int) -> WorkerProcess:
        name = f"{self._label}{slot}"
        return await WorkerProcess.start(name, slot, self._order, self._shared, self._answer)

    async def _next_ready(self) -> WorkerProcess:
        deadline = time.monotonic() + NO_WORKER_PATIENCE_S
        while True:
            for _ in range(self._count):
                worker = self._workers[next(self._turn) % self._count]
                if worker is not None and worker.ready:
                    return worker
            self._someone_ready.clear()
            try:
                await asyncio.wait_for(self._someone_ready.wait(), deadline - time.monotonic())
            except TimeoutError:
                raise WorkerLost("no worker came up within a minute") from None

    async def _keep(self, slot: int) -> None:
        """Replace the worker of a slot whenever it dies, with a growing pause between quick deaths."""
        pause = FIRST_PAUSE_S
        born = time.monotonic()
        while True:
            worker = self._workers[slot]
            if worker is not None:
                code = await worker.process.wait()
                self._shared.loads.leave(slot)  # nobody waits for the dead to accept
                await worker.end()
                log.error("worker %s (pid %d) died: %s; a new one follows", worker.name, worker.pid, cause_of(code))
            self._workers[slot] = None
            if time.monotonic() - born > GOOD_LIFE_S:
                pause = FIRST_PAUSE_S
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)
            born = time.monotonic()
            await self._replace(slot)

    async def _replace(self, slot: int) -> None:
        try:
            worker = await self._start(slot)
        except OSError:
            log.exception("a new worker could not be started")
            return
        self._workers[slot] = worker
        try:
            await worker.loaded()
            await worker.serve(self._orders)
        except BrokenApp as problem:
            log.error("a new worker could not load the app: %s", problem)  # noqa: TRY400  (the message holds the trace)
            if worker.process.returncode is None:
                worker.process.kill()
        except Exception:
            log.exception("a new worker could not be taken into service")
            worker.process.kill()
        else:
            log.info("worker %s (pid %d) is in service", worker.name, worker.pid)
            self._someone_ready.set()
