"""A carrier without processes: clients answer one after the other in the caller's thread."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp

from fedft.transport.flower_messages import OwnGrid


class InlineGrid(OwnGrid):
    """A Flower ``Grid`` over ``clients`` simulated nodes that share this process and its loaded model.

    One queued message is answered per ``pull_messages`` call, so that the caller can use each reply
    before the next one is made.
    """

    def __init__(self, client_app: ClientApp, clients: int) -> None:
        self._app = client_app
        self._contexts = {node: _context(node, clients) for node in range(1, clients + 1)}
        self._queue: dict[str, Message] = {}

    def set_run(self, *_args: Any, **_kwargs: Any) -> None:
        """Do nothing: an inline grid serves one run."""

    @property
    def run(self) -> Any:
        """Return None: there is no Flower run."""
        return None

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes' ids."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Queue messages; return their ids."""
        queued = {message.metadata.message_id: message for message in messages}
        self._queue.update(queued)
        return list(queued)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Answer the first queued message among ``message_ids``."""
        wanted = next((key for key in message_ids if key in self._queue), None)
        return [] if wanted is None else [self._answer(self._queue.pop(wanted))]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Answer all messages; ``timeout`` has no meaning here."""
        return [self._answer(message) for message in messages]

    def drop(self, message_ids: Iterable[str]) -> None:
        """Drop queued messages."""
        for key in message_ids:
            self._queue.pop(key, None)

    def _answer(self, message: Message) -> Message:
        try:
            return self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:
            return Message(Error(code=2, reason=repr(error)), reply_to=message)


def _context(node: int, clients: int) -> Context:
    place: UserConfig = {"partition-id": node - 1, "num-partitions": clients}
    return Context(run_id=1, node_id=node, node_config=place, state=RecordDict(), run_config={})
