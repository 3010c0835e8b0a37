"""Answering a round of training."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from fedft.client.worker.context import InstructionContext
from fedft.client.worker.global_state import load_global_state
from fedft.client.worker.local_privacy import local_privacy
from fedft.client.worker.release import release_once
from fedft.client.worker.residual_store import ResidualStore
from fedft.client.worker.state_cache import StateCache
from fedft.codecs import CodecContext, Shard, codec_from_spec
from fedft.codecs.bench import relative_error
from fedft.codecs.bounded import encode_bounded
from fedft.codecs.configured import uses_error_feedback
from fedft.privacy.models.interface import PrivacyModel, privacy_model
from fedft.privacy.site.disclosure import check_outgoing
from fedft.privacy.site.policy import ANY
from fedft.tensors import Arrays
from fedft.training.seeds import derive_seed
from fedft.wire import NeedSetup, Reply, Update


class TrainingHandler:
    """Trains from the round's state and sends the difference."""

    def __init__(self, states: StateCache, residuals: ResidualStore) -> None:
        self._states, self._residuals = states, residuals

    def answer(self, context: InstructionContext) -> Reply:
        """Return the update, or ask for the whole state where the instruction does not suffice."""
        instruction = context.instruction
        state = load_global_state(context, self._states)
        if state is None:
            return NeedSetup(instruction.round, instruction.setup_digest)
        model = privacy_model(context.runtime.config)
        if model.charged_at_client:
            return release_once(context, lambda: self._train(context, model, state))
        return self._train(context, model, state)

    def _train(self, context: InstructionContext, model: PrivacyModel, state: Arrays) -> Update:
        instruction, privacy = context.instruction, local_privacy(model)
        local = privacy.train(context)
        change = context.runtime.method.update(state, context.runtime.state())
        delta, told = privacy.clip(context, change)
        shards, lost = self._encode(context, model, delta)
        metrics = local.metrics | {"codec_error": lost} | told
        return Update(
            round=instruction.round,
            model=instruction.model,
            client_id=context.identity.client,
            update_seq=instruction.round.round,
            num_examples=local.examples,
            shards=shards,
            metrics=_outgoing(metrics, model, context.enforcer.metrics),
            privacy=local.statement,
        )

    def _encode(
        self, context: InstructionContext, model: PrivacyModel, delta: Arrays
    ) -> tuple[tuple[Shard, ...], float]:
        """Code an update; also return the share of its L2 norm that the code leaves out."""
        runtime, instruction, client = context.runtime, context.instruction, context.identity.client
        config, number, manifest = runtime.config, instruction.round.round, runtime.manifest
        codec = codec_from_spec(instruction.accepted_codecs[0])
        rounding = np.random.default_rng(derive_seed(config.seed, "rounding", number, client))
        coding = CodecContext(seed=instruction.codec_seed, generator=rounding)
        if uses_error_feedback(config.codec):
            # What was left out of updates without noise must never be added to one with noise.
            owner = f"{client}.private" if model.charged_at_client else client
            shards, wanted = self._residuals.encode(delta, codec, coding, manifest, instruction, owner)
        else:
            most = instruction.max_update_norm
            shards, wanted = tuple(encode_bounded(delta, codec, manifest, coding, most)), delta
        return shards, relative_error(wanted, shards, manifest, coding)


def _outgoing(
    metrics: Mapping[str, float], model: PrivacyModel, allowed: Collection[str]
) -> dict[str, float]:
    """Keep what the site policy lets out; beside a private release nothing leaves that was not noised."""
    if model.charged_at_client:
        return check_outgoing(metrics, private=True, allowed=allowed)
    return {name: value for name, value in metrics.items() if ANY in allowed or name in allowed}
