"""A TCP proxy that counts bytes, delays them and cuts connections, as a network would."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Proxy:
    """Forwards to ``port``, every byte ``delay`` seconds late.

    ``cut_up`` and ``cut_down`` cut every connection after so many more bytes.
    """

    def __init__(self, port: int, delay: float = 0.0) -> None:
        self._target, self.delay = port, delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.up = self.down = self.cuts = 0
        self._lock = threading.Lock()
        self._limits: dict[str, int | None] = {"up": None, "down": None}
        self._sockets: set[socket.socket] = set()
        self.refusing = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_up(self, after: int) -> None:
        self._limits["up"] = after

    def cut_down(self, after: int) -> None:
        self._limits["down"] = after

    def cut(self) -> None:
        """Cut every connection now."""
        with self._lock:
            self.cuts += 1
            for each in self._sockets:
                _close(each)
            self._sockets.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets |= {client, server}
            threading.Thread(target=self._pump, args=(client, server, "up"), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, "down"), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        try:
            while data := source.recv(65536):
                time.sleep(self.delay)
                sink.sendall(data)
                setattr(self, way, getattr(self, way) + len(data))
                left = self._limits[way]
                if left is not None:
                    self._limits[way] = left - len(data) if left > len(data) else None
                    if self._limits[way] is None:
                        self.cut()
        except OSError:
            pass
        finally:
            _close(source)
            _close(sink)


def _close(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
