"""Answering a round of training."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from fedft.client.site.enforcement import is_private
from fedft.client.worker.client_clipping import clip_update
from fedft.client.worker.context import InstructionContext
from fedft.client.worker.global_state import load_global_state
from fedft.client.worker.private_round import train_charged
from fedft.client.worker.release import release_once
from fedft.client.worker.residual_store import ResidualStore
from fedft.client.worker.state_cache import StateCache
from fedft.codecs import CodecContext, Shard, codec_from_spec
from fedft.codecs.bench import relative_error
from fedft.codecs.bounded import encode_bounded
from fedft.codecs.configured import uses_error_feedback
from fedft.models.load import load_count
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
        if is_private(context.runtime.config):
            return release_once(context, lambda: self._train_private(context, state))
        return self._train(context, state)

    def _train(self, context: InstructionContext, state: Arrays) -> Update:
        runtime, instruction, identity = context.runtime, context.instruction, context.identity
        number = instruction.round.round
        report = runtime.train(identity.partition, round_number=number, key=identity.client)
        trained = runtime.state()
        change = {name: trained[name] - state[name] for name in state}
        delta, told = clip_update(runtime.config, instruction, change, runtime.manifest)
        shards, lost = self._encode(context, delta)
        loads = float(load_count() - context.loads_before)
        metrics = report.metrics | {"model_loads": loads, "codec_error": lost} | told
        return Update(
            round=instruction.round,
            model=instruction.model,
            client_id=identity.client,
            update_seq=number,
            num_examples=report.examples,
            shards=shards,
            metrics=_allowed(metrics, context.enforcer.metrics),
        )

    def _train_private(self, context: InstructionContext, state: Arrays) -> Update:
        runtime, instruction, identity = context.runtime, context.instruction, context.identity
        statement = train_charged(runtime, instruction, identity, context.enforcer)
        trained = runtime.state()
        # From here on everything is computed from noised values: error feedback and code cost nothing more.
        delta = {name: trained[name] - state[name] for name in state}
        shards, lost = self._encode(context, delta)
        metrics = {"steps": float(statement.steps), "codec_error": lost}
        return Update(
            round=instruction.round,
            model=instruction.model,
            client_id=identity.client,
            update_seq=instruction.round.round,
            num_examples=0,
            shards=shards,
            metrics=check_outgoing(metrics, private=True, allowed=context.enforcer.metrics),
            privacy=statement,
        )

    def _encode(self, context: InstructionContext, delta: Arrays) -> tuple[tuple[Shard, ...], float]:
        """Code an update; also return the share of its L2 norm that the code leaves out."""
        runtime, instruction, client = context.runtime, context.instruction, context.identity.client
        config, number, manifest = runtime.config, instruction.round.round, runtime.manifest
        codec = codec_from_spec(instruction.accepted_codecs[0])
        rounding = np.random.default_rng(derive_seed(config.seed, "rounding", number, client))
        coding = CodecContext(seed=instruction.codec_seed, generator=rounding)
        if uses_error_feedback(config.codec):
            # What was left out of updates without noise must never be added to one with noise.
            owner = f"{client}.private" if is_private(config) else client
            shards, wanted = self._residuals.encode(delta, codec, coding, manifest, instruction, owner)
        else:
            most = instruction.max_update_norm
            shards, wanted = tuple(encode_bounded(delta, codec, manifest, coding, most)), delta
        return shards, relative_error(wanted, shards, manifest, coding)


def _allowed(metrics: Mapping[str, float], names: Collection[str]) -> dict[str, float]:
    """Keep what the site policy lets out."""
    return {name: value for name, value in metrics.items() if ANY in names or name in names}
