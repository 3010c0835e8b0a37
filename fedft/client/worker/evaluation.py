"""Answering an evaluation."""

from __future__ import annotations

from fedft.client.site.enforcement import MEANS_OVER_SAMPLES
from fedft.client.worker.context import InstructionContext
from fedft.client.worker.global_state import load_global_state
from fedft.client.worker.state_cache import StateCache
from fedft.wire import Evaluation, NeedSetup


class EvaluationHandler:
    """Measures the global state on what the client holds out of its data."""

    def __init__(self, states: StateCache) -> None:
        self._states = states

    def answer(self, context: InstructionContext) -> Evaluation | NeedSetup:
        """Return means over samples alone: the server weighs them by the number of samples."""
        instruction, identity = context.instruction, context.identity
        if load_global_state(context, self._states) is None:
            return NeedSetup(instruction.round, instruction.setup_digest)
        metrics = context.runtime.evaluate_client(identity.partition)
        values = {name: value for name, value in metrics.values().items() if name in MEANS_OVER_SAMPLES}
        return Evaluation(instruction.round, instruction.model, identity.client, metrics.samples, values)
