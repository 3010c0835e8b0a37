"""What becomes of an update between training and the wire: one list of steps, in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from fedft.client.worker.context import InstructionContext
from fedft.client.worker.residual_store import ResidualStore
from fedft.codecs import CodecContext, Shard, codec_from_spec
from fedft.codecs.bench import relative_error
from fedft.codecs.bounded import encode_bounded
from fedft.codecs.configured import uses_error_feedback
from fedft.codecs.error_feedback import ErrorFeedback, ResidualIdentity
from fedft.config import RunConfig
from fedft.privacy.models.interface import privacy_model
from fedft.tensors import Arrays
from fedft.training.seeds import derive_seed


@dataclass(frozen=True)
class OutgoingUpdate:
    """An update on its way out.

    Attributes:
        arrays: the change by name, float32, as the last step left it.
        shards: what travels; empty before the update is coded.
        masked: what travels in their place in a masked run.
        metrics: what the steps tell the server.

    """

    arrays: Arrays
    shards: tuple[Shard, ...] = ()
    masked: bytes = b""
    metrics: Mapping[str, float] = field(default_factory=dict)


class UpdateStep(Protocol):
    """One thing that is done to an update. The server undoes the last step first.

    What clips must come before what codes, and error feedback belongs to the code: what the code leaves out
    is added to the next update, and the code keeps the sum within the round's bound. A step that masks comes
    last.
    """

    def apply(self, update: OutgoingUpdate, context: InstructionContext) -> OutgoingUpdate:
        """Return the update after this step."""


class UpdatePipeline:
    """Applies steps in their order (the idea is that of the postprocessors of pfl-research)."""

    def __init__(self, steps: Sequence[UpdateStep]) -> None:
        self._steps = tuple(steps)

    def run(self, delta: Arrays, context: InstructionContext) -> OutgoingUpdate:
        """Return what leaves of a change of the exchanged tensors."""
        update = OutgoingUpdate(delta)
        for step in self._steps:
            update = step.apply(update, context)
        return update


class Encode:
    """Codes the update with the round's codec, and keeps what that leaves out for the next round.

    The server's inverse is the decoding in its aggregator, which takes no update above the round's norm.
    """

    def __init__(self, residuals: ResidualStore) -> None:
        self._residuals = residuals

    def apply(self, update: OutgoingUpdate, context: InstructionContext) -> OutgoingUpdate:
        """Return the update with its shards, and the share of its L2 norm that the code leaves out."""
        runtime, instruction, client = context.runtime, context.instruction, context.identity.client
        config, number, manifest = runtime.config, instruction.round.round, runtime.manifest
        codec = codec_from_spec(instruction.accepted_codecs[0])
        rounding = np.random.default_rng(derive_seed(config.seed, "rounding", number, client))
        coding = CodecContext(seed=instruction.codec_seed, generator=rounding)
        if uses_error_feedback(config.codec):
            owner = residual_owner(config, client)
            shards, wanted = self._residuals.encode(
                update.arrays, codec, coding, manifest, instruction, owner
            )
        else:
            wanted = update.arrays
            shards = tuple(encode_bounded(wanted, codec, manifest, coding, instruction.max_update_norm))
        lost = {"codec_error": relative_error(wanted, shards, manifest, coding)}
        return replace(update, shards=shards, metrics={**update.metrics, **lost})


def residual_owner(config: RunConfig, client: str) -> str:
    """Name a residual's owner: what updates without noise left out is never added to one with noise."""
    return f"{client}.private" if privacy_model(config).charged_at_client else client


def rehearse_encoding(context: InstructionContext) -> None:
    """Code made-up values as the round's update will be coded; nothing is kept.

    A private client does so before it pays: what no update can be coded with costs it nothing.

    Raises:
        FedftError: FEDFT-4018 and 4023 where the round's codec takes no update.

    """
    runtime, instruction = context.runtime, context.instruction
    config, manifest, model = runtime.config, runtime.manifest, instruction.model
    generator = np.random.default_rng(0)
    made_up = manifest.unflatten(generator.standard_normal(manifest.total_elements, dtype=np.float32))
    codec = codec_from_spec(instruction.accepted_codecs[0])
    coding = CodecContext(seed=instruction.codec_seed, generator=generator)
    bound = instruction.max_update_norm
    if uses_error_feedback(config.codec):
        identity = ResidualIdentity(instruction.round.run_id, model.frame_digest, manifest.digest())
        ErrorFeedback(identity, manifest).prepare(
            made_up, codec, coding, round=0, update_seq=0, max_norm=bound
        )
    else:
        encode_bounded(made_up, codec, manifest, coding, bound)
