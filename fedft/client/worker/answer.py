"""From a Flower message to the worker and back."""

from __future__ import annotations

from functools import cache

from flwr.app import Context, Message

from fedft.client.site.folders import ClientFolders
from fedft.client.site.identity import ClientIdentity
from fedft.client.worker.worker import Worker
from fedft.transport.flower_records import pack, unpack


@cache
def process_worker(folders: ClientFolders) -> Worker:
    """Return the worker of this process with its files in ``folders``; it keeps the model."""
    return Worker(folders)


def answer(message: Message, context: Context, folders: ClientFolders | None = None) -> Message:
    """Answer one Flower message, as a client with its files in ``folders`` unless it is a site."""
    identity = ClientIdentity.of(context.node_config, folders)
    reply = process_worker(identity.folders).handle(unpack(message.content), identity)
    return Message(pack(reply), reply_to=message)
