"""The process that holds the model: answers one instruction after the other for its daemon.

Started as ``python -m fedft.client.daemon.worker_process FD SITE``. On the socket FD each request is a
line of JSON that names the files of an instruction and of its reply; the answer is a line of JSON. The
process ends with its daemon, whatever it is doing.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from fedft import clock

NODE, SERVER = 2, 1


def main(arguments: list[str]) -> None:
    """Serve until the daemon closes the socket."""
    channel = socket.socket(fileno=int(arguments[0]))
    site = arguments[1]
    # Ctrl-C at a terminal reaches the whole group; the daemon decides what it means for the worker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(channel, requests), daemon=True).start()
    client_app = _load()
    _send(channel, {"ready": True, "pid": os.getpid()})
    while True:
        request = requests.get()
        try:
            answer = _serve(client_app, request, site)
        except OSError as error:
            answer = {"failed": f"{error.filename}: {error.strerror}"}
        _send(channel, answer)


def _load() -> Any:
    """Import everything that the first instruction needs, so that it does not wait for it."""
    import fedft.client.worker.answer  # noqa: F401
    from fedft.client.app import app

    return app


def _listen(channel: socket.socket, requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Take requests until the daemon is gone: one that was killed leaves half a line, or a reset."""
    try:
        with channel.makefile("r") as lines:
            for line in lines:
                requests.put(json.loads(line))
    except (OSError, ValueError):
        pass
    finally:
        os._exit(0)


def _serve(client_app: Any, request: dict[str, Any], site: str) -> dict[str, Any]:
    from flwr.app import Context, RecordDict

    from fedft.client.site.config import load_site
    from fedft.client.site.identity import authenticated_server
    from fedft.transport.flower_records import pack, unpack

    envelope = Path(request["instruction"]).read_bytes()
    node_config: Any = {"site": site, "server": authenticated_server(load_site(Path(site)))}
    context = Context(run_id=1, node_id=NODE, node_config=node_config, state=RecordDict(), run_config={})
    start = clock.monotonic()
    reply = client_app(_message(pack(envelope), request), context)
    Path(request["reply"]).write_bytes(unpack(reply.content))
    return {"done": request["message_id"], "seconds": clock.monotonic() - start}


def _message(content: Any, request: dict[str, Any]) -> Any:
    from flwr.app import Message, Metadata

    metadata = Metadata(
        run_id=1,
        message_id=request["message_id"],
        src_node_id=SERVER,
        dst_node_id=NODE,
        reply_to_message_id="",
        group_id=request["group"],
        created_at=clock.timestamp(),
        ttl=request["ttl"],
        message_type=request["message_type"],
    )
    return Message(content=content, metadata=metadata)  # type: ignore[call-overload]


def _send(channel: socket.socket, values: dict[str, Any]) -> None:
    channel.sendall(json.dumps(values).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
