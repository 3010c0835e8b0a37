"""Answering the handshake."""

from __future__ import annotations

from fedft.client.site.secagg import secagg_party
from fedft.client.worker.context import InstructionContext
from fedft.client.worker.private_round import greet_privately
from fedft.codecs import codec_versions
from fedft.privacy.models.interface import privacy_model
from fedft.secagg.introduction import introduce
from fedft.wire import WIRE_VERSION, Hello


class HelloHandler:
    """Says who the client is, which base model it holds and which codecs it knows."""

    def answer(self, context: InstructionContext) -> Hello:
        """Return the greeting; a private or masked client does not say how many records it has."""
        runtime, identity = context.runtime, context.identity
        masked, examples = runtime.config.secagg.required, 0
        if privacy_model(runtime.config).charged_at_client:
            greet_privately(runtime, identity, context.enforcer)
        elif not masked:
            examples = len(runtime.data.of(identity.partition).train)
        return Hello(
            identity.client,
            runtime.base_digest,
            examples,
            WIRE_VERSION,
            codec_versions(),
            introduction=_introduction(context) if masked else b"",
        )


def _introduction(context: InstructionContext) -> bytes:
    identity = context.identity
    return introduce(secagg_party(identity).key, context.instruction.round.run_id, identity.client)
