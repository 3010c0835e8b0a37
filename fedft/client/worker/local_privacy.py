"""A client's part in the privacy of a round: how it trains, and what it does to its update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from fedft.client.worker.context import InstructionContext
from fedft.client.worker.private_round import train_charged
from fedft.client.worker.update_pipeline import OutgoingUpdate, UpdateStep
from fedft.errors import Code, FedftError
from fedft.models.load import load_count
from fedft.privacy.mechanisms.client_level import clip_delta
from fedft.privacy.models.interface import PrivacyModel, model_part
from fedft.statements import PrivacyStatement
from fedft.store.records import UNCLIPPED
from fedft.training.local_round import train_client


@dataclass(frozen=True)
class LocalTraining:
    """What may be said of a round's training; its result is the state of the runtime.

    ``examples`` weighs the update, 0 when withheld.
    """

    examples: int
    metrics: dict[str, float]
    statement: PrivacyStatement | None = None

    def hidden(self) -> LocalTraining:
        """Return what may be said beside a masked update: the statement of its privacy."""
        return LocalTraining(0, {}, self.statement)


class LocalPrivacy(Protocol):
    """What a client does in a round of one privacy model."""

    def train(self, context: InstructionContext) -> LocalTraining:
        """Train the loaded state for one round."""

    @property
    def steps(self) -> Sequence[UpdateStep]:
        """What is done to the update before it is coded."""


def local_privacy(model: PrivacyModel) -> LocalPrivacy:
    """Return a privacy model's part at the client; FEDFT-1013 where there is none."""
    part: LocalPrivacy = model_part(model.client)
    return part


class NoPrivacy:
    """Trains on all of the client's data and tells how it went."""

    steps: Sequence[UpdateStep] = ()

    def train(self, context: InstructionContext) -> LocalTraining:
        """Train; the examples weigh the update."""
        identity, number = context.identity, context.instruction.round.round
        report = train_client(context.runtime, identity.partition, round_number=number, key=identity.client)
        loads = float(load_count() - context.loads_before)
        return LocalTraining(report.examples, report.metrics | {"model_loads": loads})


class Clip:
    """Clips the update to the round's bound, and tells whether it was longer where the bound follows that.

    The server's inverse is to refuse what is longer than the bound, and to scale its noise to it.
    """

    def apply(self, update: OutgoingUpdate, context: InstructionContext) -> OutgoingUpdate:
        """Return the clipped update; FEDFT-8324 where the round names no bound."""
        bound, manifest = context.instruction.max_update_norm, context.runtime.manifest
        if not bound:
            raise FedftError(
                Code.NORM_BOUND_MISSING, "the run has client-level privacy, and the round names no bound"
            )
        clipped, unclipped = clip_delta(torch.from_numpy(manifest.flatten(update.arrays)), bound)
        told = {UNCLIPPED: float(unclipped)} if context.runtime.config.privacy.clip_quantile else {}
        return replace(update, arrays=manifest.unflatten(clipped.numpy()), metrics={**update.metrics, **told})


class ClientLevel(NoPrivacy):
    """Clips the update to the bound of the round; the server adds the noise.

    Guarantee: no update that leaves is longer than the bound, in L2 norm over all tensors. It assumes a
    server that is trusted with the single updates and adds the noise that it states.
    """

    steps = (Clip(),)


class ExampleLevel(NoPrivacy):
    """Trains with DP-SGD, charged to the client's ledger before the first sample is drawn.

    Guarantee: the update costs what its statement says for one example. It assumes that the state was made
    of nothing but earlier releases; everything after training is computed from noised values.
    """

    def train(self, context: InstructionContext) -> LocalTraining:
        """Train; how many examples there are stays here."""
        statement = train_charged(context.runtime, context.instruction, context.identity, context.enforcer)
        return LocalTraining(0, {"steps": float(statement.steps)}, statement)


NO_PRIVACY, EXAMPLE_LEVEL, CLIENT_LEVEL = NoPrivacy(), ExampleLevel(), ClientLevel()
