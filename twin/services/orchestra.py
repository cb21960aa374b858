"""Bring services up in order, find those that already run, and take them down again."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from twin.services.processes import Records, Running, ServiceDied
from twin.services.service import Problem, Service, port_owner

_POLL_S = 0.1


class Step(StrEnum):
    """What is being done with a service."""

    FOUND = "already up"
    STARTING = "starting"
    RESTARTING = "settings changed, restarting"
    WAITING = "waiting until healthy"
    UP = "up"
    STOPPING = "stopping"
    DOWN = "down"


type Report = Callable[[Service, Step], None]


class TwinError(Exception):
    """The twin cannot do what was asked; the message says what and where to look."""


@dataclass(frozen=True, slots=True)
class State:
    """A service at one moment; `problem` is empty when it is healthy."""

    service: Service
    running: Running | None
    problem: Problem


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold the twin's lock, so that two commands do not change the same twin at once.

    The lock belongs to the open file, so the operating system drops it when its holder dies.

    Raises:
        TwinError: Another command holds it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TwinError(f"another tollgate command is changing the twin in {home}; wait for it") from error
        yield


def bring_up(layers: Sequence[Sequence[Service]], records: Records, report: Report, *, timeout_s: float) -> None:
    """Start what does not run, layer by layer; services of one layer start together.

    A service that runs as asked stays; one that runs with other settings is started anew.

    Raises:
        TwinError: A port is taken, a program is missing, or a service does not become healthy in time.
    """
    for layer in layers:
        started = {service.name: _ensure(service, records, report) for service in layer}
        for service in layer:
            _await(service, records, report, timeout_s, fresh=started[service.name])
        for service in layer:
            try:
                service.furnish()
            except (OSError, ValueError) as error:
                raise TwinError(f"{service.name} is up, but {error}") from error
            report(service, Step.UP)


def take_down(layers: Sequence[Sequence[Service]], records: Records, report: Report) -> list[str]:
    """Stop everything that runs, apps first, then whatever else has a record; returns the names of what ran."""

    def stop(service: Service) -> str | None:
        if records.find(service.name) is None:
            return None
        report(service, Step.STOPPING)
        records.stop(service.name, gentle=service.gentle, grace_s=service.grace_s)
        report(service, Step.DOWN)
        return service.name

    stopped: list[str] = []
    for layer in reversed(layers):
        own = [service for service in layer if not service.external]
        with ThreadPoolExecutor(max_workers=max(1, len(own))) as pool:  # each may take its whole grace period
            stopped += [name for name in pool.map(stop, own) if name]
    return [*stopped, *(name for name in records.names() if records.stop(name))]


def states(layers: Sequence[Sequence[Service]], records: Records) -> list[State]:
    """Every service as it is now; those that do not run are not asked."""
    found = []
    for service in (service for layer in layers for service in layer):
        running = records.find(service.name)
        absent = running is None and not service.external
        found.append(State(service, running, "not running" if absent else service.probe()))
    return found


def _ensure(service: Service, records: Records, report: Report) -> bool:
    """Make sure that a service has a process; returns whether it had to be started."""
    if service.external:
        return False
    running = records.find(service.name)
    if running is not None and running.fingerprint == service.fingerprint:
        report(service, Step.FOUND)
        return False
    if running is not None:
        report(service, Step.RESTARTING)
        records.stop(service.name, gentle=service.gentle, grace_s=service.grace_s)
    report(service, Step.STARTING)
    _start(service, records)
    return True


def _start(service: Service, records: Records) -> None:
    for listener, port in service.ports.items():
        owner = port_owner(port)
        if owner is not None:
            raise TwinError(
                f"port {port} ({service.name}) is taken by {owner}; stop it, or set TWIN_PORT_{listener.upper()}"
            )
    try:
        service.prepare()
        records.start(
            service.name,
            service.command,
            environment=service.environment,
            cwd=service.cwd,
            log=service.log,
            fingerprint=service.fingerprint,
        )
    except (OSError, ValueError, ServiceDied) as error:
        raise TwinError(f"{service.name} cannot start: {error}") from error


def _await(service: Service, records: Records, report: Report, timeout_s: float, *, fresh: bool) -> None:
    if fresh:
        report(service, Step.WAITING)
    deadline = time.monotonic() + timeout_s
    attempts = 1
    while problem := service.probe():
        if not service.external and records.find(service.name) is None:
            if attempts >= service.attempts:
                raise TwinError(str(ServiceDied(service.name, service.log)))
            attempts += 1
            time.sleep(0.5)
            _start(service, records)
        if time.monotonic() > deadline:
            raise TwinError(f"{service.name} is not healthy after {timeout_s:.0f} s: {problem}; see {service.log}")
        time.sleep(_POLL_S)
