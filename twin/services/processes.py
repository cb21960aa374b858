"""Processes that outlive the command that started them: start, find again, stop, never mistake one for another.

A service is found by its record: its process id, and when the record was written. The operating system uses process ids
again, but only for processes that begin after the recorded one has ended, and so after its record was written.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from twin.services import launch

MAX_LOG_BYTES = 32 * 1024 * 1024
"""A log longer than this is turned over when its service starts, bytes."""

_POLL_S = 0.02
_BEGIN_S = 60.0
"""For so long a service may take to write its record, which it does first of all."""

_CLOCK_SLACK_S = 1.0
"""The kernel counts a process's beginning in ticks since boot; converted to wall time it is off by part of a second."""


@dataclass(frozen=True, slots=True)
class Running:
    """A service that runs: its process, when it began (seconds since 1970), and what it was started as."""

    pid: int
    started_at: float
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Records:
    """The records of all services of one twin, as files in one folder."""

    folder: Path

    def find(self, service: str) -> Running | None:
        """The running process of a service, or None; a record whose process is gone counts as none."""
        document = self._read(service)
        if document is None:
            return None
        try:
            process = psutil.Process(int(document["pid"]))
            began = process.create_time()
            if process.status() == psutil.STATUS_ZOMBIE:
                _reap(process.pid)
                return None
            if began > float(document["recorded_at"]) + _CLOCK_SLACK_S:
                return None
            return Running(process.pid, began, document["fingerprint"])
        except (psutil.NoSuchProcess, KeyError, ValueError, TypeError):
            return None

    def start(
        self,
        service: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        cwd: Path,
        log: Path,
        fingerprint: str,
    ) -> Running:
        """Start a service in a session of its own, its output appended to a log.

        The environment is taken as given. A `fingerprint` says what it was started as, so that a later `up` can tell
        whether it is still the right thing.

        Raises:
            ServiceDied: The process ended before it could write its record, or was ended because it did not begin.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        _turn_over(log)
        record = self._path(service)
        record.unlink(missing_ok=True)
        with log.open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", launch.__file__, str(record), fingerprint, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=dict(environment),
                start_new_session=True,
            )
        deadline = time.monotonic() + _BEGIN_S
        while not record.exists():
            if time.monotonic() > deadline:
                child.kill()  # it has no record yet, so nobody else would find it
                child.wait()
            if child.poll() is not None:
                raise ServiceDied(service, log)
            time.sleep(_POLL_S)
        child.returncode = 0  # it outlives us on purpose: silences the warning about a child left behind
        return Running(child.pid, time.time(), fingerprint)

    def stop(self, service: str, *, gentle: signal.Signals = signal.SIGTERM, grace_s: float = 20) -> bool:
        """End a service and its children: ask, wait, then insist. Returns whether it ran."""
        running = self.find(service)
        if running is not None:
            end(running.pid, gentle=gentle, grace_s=grace_s)
        self._path(service).unlink(missing_ok=True)
        return running is not None

    def names(self) -> list[str]:
        """Services that have a record, running or not."""
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def _path(self, service: str) -> Path:
        return self.folder / f"{service}.json"

    def _read(self, service: str) -> dict[str, Any] | None:
        try:
            document = json.loads(self._path(service).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return document if isinstance(document, dict) else None


class ServiceDied(Exception):
    """A service ended by itself; the message names its log and shows its last lines."""

    def __init__(self, service: str, log: Path) -> None:
        super().__init__(f"{service} ended while starting; the end of {log}:\n{tail(log, 15)}")


def end(pid: int, *, gentle: signal.Signals = signal.SIGTERM, grace_s: float = 20) -> None:
    """End one process: a signal to it alone, so that it can end its children in order; then SIGKILL to what is left."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        process.send_signal(gentle)
    except psutil.NoSuchProcess:
        return
    _, alive = psutil.wait_procs(family[:1], timeout=grace_s)
    _, left = psutil.wait_procs(family[1:], timeout=0 if alive else 3)
    for process in [*alive, *left]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs([*alive, *left], timeout=5)
    _reap(pid)


def tail(path: Path, lines: int) -> str:
    """The last lines of a text file; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 200 * lines))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _turn_over(log: Path) -> None:
    """Keep a long log as `<name>.log.1` and begin a new one; nobody writes to it, since its service is not running."""
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))


def _reap(pid: int) -> None:
    """Collect the exit status if the process is our own child; another command's child is its parent's concern."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
