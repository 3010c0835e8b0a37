"""A client's part in a private round: charged, trained, stated."""

from __future__ import annotations

from fedft.client.site.enforcement import PolicyEnforcer
from fedft.client.site.folders import checked_name
from fedft.client.site.identity import ClientIdentity
from fedft.client.worker.reply_journal import ReplyJournal
from fedft.codecs import Manifest
from fedft.errors import Code, FedftError
from fedft.privacy.accounting.accountants import ACCOUNTANT
from fedft.statements import PrivacyMechanism, PrivacyStatement, PrivacyUnit
from fedft.tensors import Arrays
from fedft.training.model_runtime import ModelRuntime
from fedft.training.private_client import sketch_of, train_client
from fedft.training.private_schedule import PrivateRounds, private_round, private_sketch_of
from fedft.training.stages import round_bound
from fedft.wire import Instruction


def train_charged(
    runtime: ModelRuntime, instruction: Instruction, identity: ClientIdentity, enforcer: PolicyEnforcer
) -> PrivacyStatement:
    """Train one round privately and return what may be said about it.

    The charge is on disk before the first sample is drawn. The data are read before the charge, so that a
    file that is missing costs nothing.
    """
    number = instruction.round.round
    rounds = private_round(runtime.config, runtime.records.count(identity.partition), number)
    runtime.client_data(identity.partition)
    _, epsilon = enforcer.charge(runtime, identity, instruction, rounds.event())
    train_client(runtime, identity.partition, rounds, round_number=number)
    return _statement(runtime, rounds, round_bound(runtime.config, number), epsilon)


def sketch_charged(
    runtime: ModelRuntime, instruction: Instruction, identity: ClientIdentity, enforcer: PolicyEnforcer
) -> tuple[Arrays, Manifest, PrivacyStatement]:
    """Return a noised sketch of the gradients, with its manifest and what may be said about it.

    Raises:
        FedftError: FEDFT-8323 in a run whose frame is not made of sketches.

    """
    rounds = private_sketch_of(runtime.config, runtime.records.count(identity.partition))
    if rounds is None:
        raise FedftError(
            Code.UNEXPECTED_SKETCH, "a sketch is asked for, and the run's frame is not made of sketches"
        )
    runtime.client_data(identity.partition)
    _, epsilon = enforcer.charge(runtime, identity, instruction, rounds.event())
    arrays, manifest = sketch_of(runtime, identity.partition, rounds)
    return arrays, manifest, _statement(runtime, rounds, runtime.config.privacy.sketch_max_norm, epsilon)


def _statement(
    runtime: ModelRuntime, rounds: PrivateRounds, bound: float, epsilon: float
) -> PrivacyStatement:
    return PrivacyStatement(
        mechanism=PrivacyMechanism.DP_SGD,
        unit=PrivacyUnit.EXAMPLE,
        noise_multiplier=rounds.noise_multiplier,
        max_norm=bound,
        sample_rate=rounds.event().sample_rate,
        steps=rounds.steps,
        epsilon=epsilon,
        delta=runtime.config.privacy.delta,
        accountant=ACCOUNTANT,
    )


def simulated_journal(identity: ClientIdentity, run_id: str) -> ReplyJournal:
    """Return what a simulated client has answered in private rounds; a site's daemon keeps its own.

    A round that the server repeats is answered with the update that was charged.
    """
    folder = identity.folders.state / "replies" / checked_name(run_id)
    return ReplyJournal(folder / f"{checked_name(identity.client)}.sqlite")
