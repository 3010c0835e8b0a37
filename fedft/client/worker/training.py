"""Answering a round of training."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fedft.client.worker.context import InstructionContext
from fedft.client.worker.global_state import load_global_state
from fedft.client.worker.local_privacy import local_privacy
from fedft.client.worker.masking import Mask, RoundMask
from fedft.client.worker.release import release_once
from fedft.client.worker.residual_store import ResidualStore
from fedft.client.worker.state_cache import StateCache
from fedft.client.worker.update_pipeline import Encode, UpdatePipeline, UpdateStep, rehearse_encoding
from fedft.privacy.models.interface import PrivacyModel, privacy_model
from fedft.privacy.site.disclosure import check_outgoing
from fedft.privacy.site.policy import ANY
from fedft.tensors import Arrays
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
        config = context.runtime.config
        model, mask = privacy_model(config), RoundMask.of(context) if config.secagg.required else None
        if model.charged_at_client:
            if mask is None:
                rehearse_encoding(context)
            return release_once(context, lambda: self._train(context, model, state, mask))
        return self._train(context, model, state, mask)

    def _train(
        self, context: InstructionContext, model: PrivacyModel, state: Arrays, mask: RoundMask | None
    ) -> Update:
        instruction, privacy = context.instruction, local_privacy(model)
        local = privacy.train(context)
        change = context.runtime.method.update(state, context.runtime.state())
        last: UpdateStep = Encode(self._residuals)
        if mask is not None:
            weighted = context.runtime.config.rounds.weighting == "examples"
            last, local = Mask(mask, self._residuals, local.examples if weighted else 1), local.hidden()
        sent = UpdatePipeline([*privacy.steps, last]).run(change, context)
        metrics = {**local.metrics, **sent.metrics}
        return Update(
            round=instruction.round,
            model=instruction.model,
            client_id=context.identity.client,
            update_seq=instruction.round.round,
            num_examples=local.examples,
            shards=sent.shards,
            metrics=_outgoing(metrics, model, context.enforcer.metrics),
            privacy=local.statement,
            masked=sent.masked,
        )


def _outgoing(
    metrics: Mapping[str, float], model: PrivacyModel, allowed: Collection[str]
) -> dict[str, float]:
    """Keep what the site policy lets out; beside a private release nothing leaves that was not noised."""
    if model.charged_at_client:
        return check_outgoing(metrics, private=True, allowed=allowed)
    return {name: value for name, value in metrics.items() if ANY in allowed or name in allowed}
