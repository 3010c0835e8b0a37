"""From a Flower message to the worker and back."""

from __future__ import annotations

from functools import cache

from flwr.app import Context, Message

from fedft.client.place import Place
from fedft.client.worker import Worker
from fedft.link.records import pack, unpack


@cache
def process_worker() -> Worker:
    """Return the worker of this process; it keeps the model between messages."""
    return Worker()


def answer(message: Message, context: Context) -> Message:
    """Answer one Flower message."""
    place = Place.of(context.node_config)
    return Message(pack(process_worker().handle(unpack(message.content), place)), reply_to=message)
