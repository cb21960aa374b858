"""The host process of one app: bind, start a generation, serve until told to stop, reload when files change."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import platform
import secrets
import signal
import socket
from collections.abc import Mapping

from twin.host.admin import Admin
from twin.host.config import HostConfig, load_config
from twin.host.errors import HostError, PortTaken
from twin.host.generation import Generation
from twin.host.ipc import ChannelClosed, RemoteError
from twin.host.settings import environment
from twin.host.watch import Watch

log = logging.getLogger(__name__)

GRACE_S = 30.0
BACKLOG = 1024


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet, so that nobody connects to an app that may be broken.

    Raises:
        PortTaken: another process has the port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as problem:
        bound.close()
        raise PortTaken(f"port {port} on {host} is taken or not allowed: {problem.strerror}") from problem
    return bound


def start_listening(bound: socket.socket) -> None:
    """Let connections in. Raises PortTaken if another process was faster to listen on the same port."""
    try:
        bound.listen(BACKLOG)
    except OSError as problem:
        if problem.errno == errno.EADDRINUSE:
            raise PortTaken(f"port {bound.getsockname()[1]} is taken: another process listens on it") from problem
        raise


def host_id(settings: Mapping[str, str], app_dir: str) -> str:
    """The app's id, shared by all its instances; names its folders in storage.

    `AzureFunctionsWebHost__hostid` if set, else the site's name as in the cloud, else machine and app folder as Core
    Tools does; at most 32 characters.
    """
    chosen = settings.get("AzureFunctionsWebHost__hostid")
    if chosen:
        return chosen.lower()
    site = settings.get("WEBSITE_SITE_NAME")
    if site:
        return site.lower()[:32].rstrip("-")
    machine = "".join(letter for letter in platform.node().lower() if letter.isalnum()) or "host"
    return f"{machine[:20]}-{hashlib.sha256(app_dir.encode()).hexdigest()[:10]}"


def _take_environment(env: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)


class Host:
    """One app, one process. `run` returns when the host was told to stop."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._stop = asyncio.Event()
        self._state = "Starting"
        self._number = 0
        self._generation: Generation | None = None
        self.instance_id = config.instance_id or secrets.token_hex(16)
        self.host_id = host_id(config.settings, str(config.app_dir))
        self._admin = Admin(self._current, self.host_id, self.instance_id, lambda: self.state)

    @property
    def state(self) -> str:
        """`Running` only when all workers and listeners are up."""
        if self._state == "Running" and not self._current().running:
            return "Initialized"
        return self._state

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain.

        Raises:
            PortTaken: the port is in use.
            BrokenApp: the app cannot run here.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._config.state_dir.mkdir(parents=True, exist_ok=True)
        # Before the app is imported, so that no edit falls between.
        watch = self._new_watch() if self._config.watch else None
        listening = bind(self._config.host, self._config.port)
        try:
            await self._start(listening)
            watching = None if watch is None else asyncio.create_task(self._watch(watch, listening))
            await self._stop.wait()
            self._state = "Stopping"
            log.info("stopping: what is in flight may end")
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            if self._generation is not None:
                await self._generation.stop_listening(self._grace_s())
                await self._generation.drain(self._grace_s())
            log.info("stopped")
        finally:
            listening.close()

    def _new_watch(self) -> Watch:
        """Look at the app, at what it imports from elsewhere, and at our own configuration."""
        config = self._config
        settings_file = config.app_dir / "local.settings.json"
        unread = frozenset() if config.own_settings else frozenset({settings_file})
        return Watch((config.app_dir, *config.watch_also, config.source), unread)

    async def _start(self, listening: socket.socket) -> None:
        preparing = asyncio.create_task(self._prepare(self._config, listening))
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({preparing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not preparing.done():  # told to stop while the app is still being imported
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)
            return
        generation = await preparing
        self._generation = generation
        try:
            start_listening(listening)
            await generation.serve(self._admin.answer)
        except BaseException:
            await generation.pool.kill()
            raise
        await generation.listen()
        self._state = "Running"
        address, port = listening.getsockname()[:2]
        names = ", ".join(sorted(generation.functions)) or "none"
        log.info("listening on http://%s:%d as instance %s of %s", address, port, self.instance_id, self.host_id)
        log.info("functions: %s", names)

    async def _prepare(self, config: HostConfig, listening: socket.socket) -> Generation:
        # The SDKs read identity and TLS settings from the environment, some when they are imported, so this comes
        # first; in the cloud the app's settings are in the host's environment too.
        _take_environment(environment(config.settings, str(config.app_dir)))
        return await Generation.prepare(config, listening, self.host_id, self._number)

    async def _watch(self, watch: Watch, listening: socket.socket) -> None:
        while True:
            changed = await watch.changed()
            log.info("reloading: %s changed", ", ".join(changed))
            self._number += 1
            try:
                await self._reload(listening)
            except (HostError, ChannelClosed, RemoteError) as problem:
                log.error("the change was not taken over, the app before it keeps serving: %s", problem)  # noqa: TRY400

    async def _reload(self, listening: socket.socket) -> None:
        """Bring up the new app beside the old one, then let the old one drain: there is no gap."""
        config = load_config(self._config.source)
        old = self._current()
        if (config.host, config.port) != (self._config.host, self._config.port):
            log.warning("host and port stay as they are until this process is started again")
        try:
            new = await self._prepare(config, listening)
        except HostError:
            _take_environment(old.env)
            raise
        try:
            await new.serve(self._admin.answer)
        except BaseException:
            await new.pool.kill()
            raise
        self._generation = new
        await old.stop_listening(self._grace_s())
        await new.listen()
        await old.drain(self._grace_s())
        log.info("reloaded: generation %d serves %s", self._number, ", ".join(sorted(new.functions)))

    def _current(self) -> Generation:
        if self._generation is None:
            raise RuntimeError("no generation is up yet")
        return self._generation

    def _grace_s(self) -> float:
        timeout = self._current().hostjson.timeout_s
        return GRACE_S if timeout is None else min(GRACE_S, timeout)


async def serve(config: HostConfig) -> None:
    """Run a host to its end."""
    await Host(config).run()
