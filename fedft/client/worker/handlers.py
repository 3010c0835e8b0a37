"""Which handler answers which kind of instruction."""

from __future__ import annotations

from collections.abc import Mapping

from fedft.client.worker.context import Handler
from fedft.client.worker.evaluation import EvaluationHandler
from fedft.client.worker.hello import HelloHandler
from fedft.client.worker.residual_store import ResidualStore
from fedft.client.worker.secagg import secagg_handlers
from fedft.client.worker.sketching import SketchHandler
from fedft.client.worker.state_cache import StateCache
from fedft.client.worker.training import TrainingHandler
from fedft.errors import Code, FedftError
from fedft.wire import InstructionKind


def new_handlers(residuals: ResidualStore) -> dict[InstructionKind, Handler]:
    """Return one handler for each kind of instruction; those that load a state share what they hold."""
    states = StateCache()
    return {
        InstructionKind.HELLO: HelloHandler(),
        InstructionKind.SKETCH: SketchHandler(),
        InstructionKind.TRAIN: TrainingHandler(states, residuals),
        InstructionKind.EVALUATE: EvaluationHandler(states),
        **secagg_handlers(),
    }


def handler_of(handlers: Mapping[InstructionKind, Handler], kind: InstructionKind) -> Handler:
    """Return what answers a kind of instruction; FEDFT-7012 where nothing does."""
    handler = handlers.get(kind)
    if handler is None:
        raise FedftError(
            Code.UNKNOWN_INSTRUCTION,
            f"this client does not answer {kind!r}",
            hint="update fedft on this site",
        )
    return handler
