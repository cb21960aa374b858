"""A TCP relay in front of a server, which a test can cut, stall and mend: what a network does to an app."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Relay:
    """Passes bytes on until it is cut (connections are reset and refused) or stalled (nothing passes)."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pass = threading.Event()
        self._pass.set()
        self._is_cut = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Reset every connection, and every new one at once."""
        self._is_cut = True
        with self._lock:
            for end in list(self._open):
                _reset(end)

    def stall(self) -> None:
        """Let nothing pass, and tell nobody."""
        self._pass.clear()

    def mend(self) -> None:
        """Pass bytes on again, those that were held back too."""
        self._is_cut = False
        self._pass.set()

    def close(self) -> None:
        """End it."""
        self._listener.close()
        self.cut()
        self._pass.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._is_cut:
                    _reset(client)
                    continue
                server = socket.create_connection(("127.0.0.1", self._target_port))
                with self._lock:
                    if self._is_cut:  # since, and whoever cut it did not find these two
                        _reset(client)
                        server.close()
                        continue
                    self._open |= {client, server}
                for source, sink in ((client, server), (server, client)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._pass.wait()
                sink.sendall(data)
        with self._lock:
            self._open -= {source, sink}
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextlib.contextmanager
def relay(target_port: int) -> Iterator[Relay]:
    """A relay that ends with the block."""
    made = Relay(target_port)
    try:
        yield made
    finally:
        made.close()


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        end.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        end.close()
