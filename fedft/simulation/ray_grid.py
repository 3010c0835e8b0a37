"""Flower's grid over Ray, which cannot go on once a simulated client's process has died."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from fedft.errors import Code, FedftError


class RayGrid(Grid):
    """A ``Grid`` that raises FEDFT-6107 for a reply that says that Ray lost the process of a client.

    Ray's pool hands work to a dead process again and again, so neither this round nor a later one would get
    all its clients: the engine must be started anew. Only a simulation reads replies so; in a deployment
    the text of a failure is the client's.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def set_run(self, *args: Any, **kwargs: Any) -> None:
        """Pass on."""
        self._grid.set_run(*args, **kwargs)

    @property
    def run(self) -> Any:
        """Flower's run."""
        return self._grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Pass on."""
        return self._grid.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes' ids."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; return their ids."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there; FEDFT-6107 when a process died."""
        return [_alive(reply) for reply in self._grid.pull_messages(message_ids)]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and return the replies; FEDFT-6107 when a process died."""
        return [_alive(reply) for reply in self._grid.send_and_receive(messages, timeout=timeout)]


def _alive(reply: Message) -> Message:
    reason = (reply.error.reason or "") if reply.has_error() else ""
    if "ray.exceptions." in reason:
        raise FedftError(
            Code.SIMULATED_CLIENT_DIED,
            f"the process of node {reply.metadata.src_node_id} died: {' '.join(reason.split())[:200]}",
            hint="often out of memory: lower simulation.workers; the run can be resumed",
        )
    return reply
