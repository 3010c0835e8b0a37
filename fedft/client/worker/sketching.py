"""Answering the request for a sketch of private gradients."""

from __future__ import annotations

from fedft.client.worker.context import InstructionContext
from fedft.client.worker.private_round import sketch_charged
from fedft.client.worker.release import release_once
from fedft.codecs import CodecContext, codec_from_spec
from fedft.wire import Reply, Update


class SketchHandler:
    """Releases a noised sketch of the client's gradients, charged before, for the run's frame."""

    def answer(self, context: InstructionContext) -> Reply:
        """Return an update whose tensors are the sketch."""
        return release_once(context, lambda: _sketch(context))


def _sketch(context: InstructionContext) -> Update:
    context.require_base()
    instruction, identity = context.instruction, context.identity
    arrays, manifest, statement = sketch_charged(context.runtime, instruction, identity, context.enforcer)
    codec = codec_from_spec(instruction.accepted_codecs[0])
    return Update(
        round=instruction.round,
        model=instruction.model,
        client_id=identity.client,
        update_seq=0,
        num_examples=0,
        shards=tuple(codec.encode(arrays, manifest, CodecContext(seed=instruction.codec_seed))),
        privacy=statement,
    )
