"""Making Flower messages, inside and outside Flower's own processes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from flwr.app import Message, Metadata, RecordDict
from flwr.serverapp import Grid

from fedft import clock

_RUN, _SERVER, _DEFAULT_TTL = 1, 1, 43200.0


class OwnGrid(Grid):
    """A carrier of this project, which makes its messages itself.

    Flower's constructor of instructions works only in a process that Flower has started.
    """

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message to a node, with an id of its own."""
        metadata = Metadata(
            run_id=_RUN,
            message_id=uuid.uuid4().hex,
            src_node_id=_SERVER,
            dst_node_id=dst_node_id,
            reply_to_message_id="",
            group_id=group_id,
            created_at=clock.timestamp(),
            ttl=_DEFAULT_TTL if ttl is None else ttl,
            message_type=message_type,
        )
        # Public, but missing from the stubs.
        message: Message = Message(content=content, metadata=metadata)  # type: ignore[call-overload]
        return message

    def drop(self, message_ids: Iterable[str]) -> None:
        """Let go of messages whose replies nobody waits for any more, and of replies that came too late."""


def new_message(
    grid: Grid, content: RecordDict, message_type: str, node_id: int, *, group: str, ttl: float
) -> Message:
    """Make an instruction for a node of this grid."""
    if isinstance(grid, OwnGrid):
        return grid.create_message(content, message_type, node_id, group, ttl)
    return Message(content, node_id, message_type, ttl=ttl, group_id=group)
