"""From a Flower message to the worker and back."""

from __future__ import annotations

from functools import cache

from flwr.app import Context, Message

from fedft.client.site.identity import ClientIdentity
from fedft.client.worker.worker import Worker
from fedft.transport.flower_records import pack, unpack


@cache
def process_worker() -> Worker:
    """Return the worker of this process; it keeps the model between messages."""
    return Worker()


def answer(message: Message, context: Context) -> Message:
    """Answer one Flower message."""
    identity = ClientIdentity.of(context.node_config)
    return Message(pack(process_worker().handle(unpack(message.content), identity)), reply_to=message)
