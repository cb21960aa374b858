"""What can go wrong with a host, and the exit code that each root means.

HostError
├── InvalidConfig   2  the configuration file or local.settings.json; names every field and rule
├── PortTaken       3  another process listens on the port
└── BrokenApp       4  the app cannot run here: import error, bad binding, host.json, unsupported feature
WorkerLost             a worker process ended while it ran an invocation
BindingFailed          an output binding could not write; the invocation fails
"""

from __future__ import annotations

from collections.abc import Sequence

# Exit codes of a worker process, so that its host can name the cause.
WORKER_TIMED_OUT = 70
WORKER_LOST_HOST = 71


class HostError(Exception):
    """A reason not to start, with the exit code for the process."""

    exit_code = 1


class InvalidConfig(HostError):
    """The host's own configuration breaks rules; `problems` names each of them."""

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class PortTaken(HostError):
    """The port to listen on is in use."""

    exit_code = 3


class BrokenApp(HostError):
    """The function app cannot run on this host; `problems` names each reason."""

    exit_code = 4

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class WorkerLost(Exception):
    """The worker that ran an invocation ended before it answered."""


class BindingFailed(Exception):
    """An output binding could not write what the function returned."""
