"""Comes with the timer triggers."""

from __future__ import annotations

from twin.host.bindings import Function
from twin.host.errors import BrokenApp


class TimerListener:
    """Refuses until it is written."""

    ready = False

    def __init__(self, _generation: object, function: Function) -> None:
        raise BrokenApp([f"function {function.name!r}: timer triggers are not supported yet"])

    async def start(self) -> None:
        """Never reached."""

    async def stop(self, grace_s: float) -> None:
        """Never reached."""
