"""Keeping a worker process: started, asked, ended, and started again when it dies."""

from __future__ import annotations

import json
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from fedft import clock
from fedft.errors import Code, FedftError

_START_SECONDS = 300.0
_END_SECONDS = 3.0


class WorkerProcess:
    """One worker process at a time. Not for use by several threads.

    Args:
        site: path of the site's configuration, which the worker reads itself.

    Attributes:
        starts: how many processes there have been.
        warm: whether the present one has answered before, so that libraries and model are loaded.

    """

    def __init__(self, site: Path) -> None:
        self._site = site
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._buffer = b""
        self._ready = False
        self.starts = 0
        self.warm = False

    @property
    def pid(self) -> int:
        """The process id, 0 while there is no process."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def start(self) -> None:
        """Start a process unless one is there; it loads its libraries while we go on."""
        if self.pid:
            return
        self.end()
        ours, theirs = socket.socketpair()
        command = [
            sys.executable,
            "-m",
            "fedft.client.daemon.worker_process",
            str(theirs.fileno()),
            str(self._site),
        ]
        with theirs:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._socket, self._buffer, self._ready = ours, b"", False
        self.warm = False
        self.starts += 1

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            FedftError: FEDFT-7042 the process did not get ready, FEDFT-7040 it died, FEDFT-7041 it gave no
                answer within ``seconds`` and was ended. The next ``start`` makes a new one.

        """
        self.start()
        if not self._ready:
            self._receive(clock.monotonic() + _START_SECONDS)
            self._ready = True
        assert self._socket is not None
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            raise self._died() from None
        answer = self._receive(clock.monotonic() + seconds)
        self.warm = True
        return answer

    def end(self) -> None:
        """End the process, by force if it does not end by itself."""
        if self._socket is not None:
            self._socket.close()  # the worker ends when it sees this
            self._socket = None
        if self._process is not None:
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def kill(self) -> None:
        """End the process at once; a thread that waits in ``ask`` gets FEDFT-7040."""
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()

    def _receive(self, end: float) -> dict[str, Any]:
        assert self._socket is not None
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._socket], [], [], max(0.0, end - clock.monotonic()))
            if not ready:
                self.kill()
                self.end()
                raise FedftError(Code.WORKER_TIMED_OUT, "the worker gave no answer in time and was ended")
            data = self._socket.recv(65536)
            if not data:
                raise self._died()
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _died(self) -> FedftError:
        process = self._process
        self.end()
        status = process.returncode if process is not None else None
        how = signal.Signals(-status).name if status is not None and status < 0 else f"exit status {status}"
        if not self._ready:
            return FedftError(
                Code.WORKER_NOT_STARTED,
                f"the worker process does not start: {how}",
                hint="see the daemon's log",
            )
        return FedftError(
            Code.WORKER_DIED,
            f"the worker process died in its work: {how}",
            hint="SIGKILL often means out of memory; the daemon has a new worker for the next round",
        )
