"""One worker process, seen from the host process: start it, hear what it loaded, use it, end it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import site
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twin.host.errors import WORKER_LOST_HOST, WORKER_TIMED_OUT, BrokenApp, WorkerLost
from twin.host.ipc import Channel, ChannelClosed, Json, Payload, RemoteError
from twin.host.loads import Loads

log = logging.getLogger(__name__)

BOOT = Path(__file__).parent / "worker" / "boot.py"
# An import may take two minutes in the cloud (python-build-options, Python 3.13 and later).
LOAD_TIMEOUT_S = 120.0

type Answer = Callable[[str, Payload], Awaitable[Payload]]

_CAUSES = {
    WORKER_TIMED_OUT: "a function ran over functionTimeout",
    WORKER_LOST_HOST: "it lost the channel to the host",
}
# How long a worker may take to note that it shall not accept connections; one with a blocked loop never does.
CLOSE_PATIENCE_S = 1.0

# A worker that was told to leave calls the app's exit functions first, for 10 s at most.
LEAVING_PATIENCE_S = 12.0


@dataclass(frozen=True, slots=True)
class WorkerOrder:
    """What every worker of an app is started with."""

    app_dir: Path
    site_packages: Path | None
    env: Mapping[str, str]
    log_level: str
    log_format: str


@dataclass(frozen=True, slots=True)
class Shared:
    """What the workers of an app have in common: the socket that they accept from, and who holds how much of it."""

    listening: socket.socket
    loads: Loads


def cause_of(code: int) -> str:
    """An exit code in words."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return _CAUSES.get(code, f"exit code {code}")


class WorkerProcess:
    """A running worker. Make one with `start`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, answer: Answer) -> None:
        self.name = name
        self.process = process
        self.ready = False
        self._answer = answer
        self._channel: Channel
        self._loaded: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._serving: asyncio.Task[None]

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @classmethod
    async def start(cls, name: str, place: int, order: WorkerOrder, shared: Shared, answer: Answer) -> WorkerProcess:
        """Spawn a worker; `place` is its own among those who share the socket, from 0."""
        ours, theirs = socket.socketpair()
        argument = {
            "name": name,
            "parent": os.getpid(),
            "control_fd": theirs.fileno(),
            "listen_fd": shared.listening.fileno(),
            "loads_fd": shared.loads.descriptor,
            "workers": shared.loads.count,
            "place": place,
            "app_dir": str(order.app_dir),
            "site_packages": None if order.site_packages is None else str(order.site_packages),
            "site_dirs": site.getsitepackages(),
            "twin_dir": str(Path(__file__).parent.parent),
            "log_level": order.log_level,
            "log_format": order.log_format,
        }
        # -I keeps PYTHONPATH and the current folder out; -S in addition keeps this environment's packages out; -u lets
        # what a function prints be seen even if the worker is killed.
        isolation = ["-I", "-u"] if order.site_packages is None else ["-I", "-u", "-S"]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *isolation,
            str(BOOT),
            json.dumps(argument),
            env=dict(order.env),
            cwd=order.app_dir,
            pass_fds=(theirs.fileno(), shared.listening.fileno(), shared.loads.descriptor),
            stdin=asyncio.subprocess.DEVNULL,
        )
        theirs.close()
        worker = cls(name, process, answer)
        worker._channel = await Channel.over(ours, worker._handle)
        worker._serving = asyncio.create_task(worker._serve())
        return worker

    async def loaded(self) -> Mapping[str, Any]:
        """The app's functions as the worker found them.

        Raises:
            BrokenApp: the app could not be imported, with its stack trace.
        """
        try:
            return await asyncio.wait_for(self._loaded, LOAD_TIMEOUT_S)
        except TimeoutError:
            raise BrokenApp([f"the app took more than {LOAD_TIMEOUT_S:g} s to import"]) from None

    async def serve(self, orders: Json) -> None:
        """Let it accept requests."""
        await self._channel.ask("serve", orders)
        self.ready = True

    async def invoke(self, body: Json, blobs: Sequence[bytes]) -> Payload:
        """Run a function there.

        Raises:
            WorkerLost: the process ended before it answered.
            RemoteError: it could not run the function or pass on what came out.
        """
        try:
            return await self._channel.ask("invoke", body, blobs)
        except ChannelClosed as problem:
            raise WorkerLost(f"worker {self.name} was lost while it ran {body.get('function')}: {problem}") from problem

    async def close(self) -> None:
        """Let it stop accepting connections; what runs goes on."""
        with contextlib.suppress(ChannelClosed, RemoteError, TimeoutError):
            await asyncio.wait_for(self._channel.ask("close"), CLOSE_PATIENCE_S)

    async def drain(self, grace_s: float) -> int:
        """Let it finish what it runs and leave; kill it after `grace_s`. Returns how many calls were cut off."""
        abandoned = 0
        if not self.ready and self.process.returncode is None:  # it still imports the app: nothing to wait for
            self.process.kill()
        self.ready = False
        try:
            answer = await asyncio.wait_for(self._channel.ask("drain", {"grace_s": grace_s}), grace_s + 1)
            abandoned = int(str(answer.body["abandoned"]))
        except TimeoutError:  # its event loop is blocked
            abandoned = 1
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        except (ChannelClosed, RemoteError) as problem:
            log.debug("worker %s did not drain: %s", self.name, problem)
        await self.end(LEAVING_PATIENCE_S)
        return abandoned

    async def end(self, patience_s: float = 2.0) -> int:
        """Wait for the process to leave, else kill it; returns its exit code."""
        self.ready = False
        try:
            return await asyncio.wait_for(self.process.wait(), patience_s)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            return await self.process.wait()
        finally:
            self._channel.close()
            await asyncio.gather(self._serving, return_exceptions=True)

    async def _serve(self) -> None:
        await self._channel.run()
        self.ready = False
        if not self._loaded.done():
            code = await self.process.wait()
            self._loaded.set_exception(BrokenApp([f"a worker ended while it imported the app: {cause_of(code)}"]))

    async def _handle(self, op: str, payload: Payload) -> Payload:
        if op == "loaded" and not self._loaded.done():
            self._loaded.set_result(payload.body)
            return Payload()
        if op == "failed" and not self._loaded.done():
            trace = payload.text("stack_trace")
            self._loaded.set_exception(BrokenApp([payload.text("message") + (f"\n{trace}" if trace else "")]))
            return Payload()
        return await self._answer(op, payload)
