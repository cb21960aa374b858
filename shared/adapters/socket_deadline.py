"""A bound on a whole exchange over a socket: a timeout bounds each read, and a server can drip for ever."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Timer


@contextmanager
def cut_after(current: Callable[[], socket.socket | None], seconds: float) -> Iterator[None]:
    """Shut a connection down unless the block ends in time; whoever reads then meets its end.

    Args:
        current: The socket that is in use then: encryption puts another one in its place.
        seconds: How long the block may take.
    """

    def cut() -> None:
        connection = current()
        if connection is not None:
            with suppress(OSError):
                # Of the plain socket: TLS would want to say goodbye first.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
