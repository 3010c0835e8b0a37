"""A client's part in a private round: charged, trained, stated."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fedft.client.site.enforcement import PolicyEnforcer
from fedft.client.site.folders import checked_name
from fedft.client.site.identity import ClientIdentity
from fedft.client.worker.reply_journal import ReplyJournal
from fedft.codecs import Manifest
from fedft.errors import Code, FedftError
from fedft.privacy.accounting.accountants import ACCOUNTANT
from fedft.privacy.site.disclosure import withheld
from fedft.statements import LedgerWitness, PrivacyMechanism, PrivacyStatement, PrivacyUnit
from fedft.tensors import Arrays
from fedft.training.model_runtime import ModelRuntime
from fedft.training.private_client import sketch_of, train_client
from fedft.training.private_schedule import PrivateRounds, private_round, private_sketch_of
from fedft.training.stages import round_bound, stage_of
from fedft.wire import Instruction


class ChargedSamples:
    """A client's samples behind its ledger: whoever asks for them has paid for the round.

    What is raised before that is a function of the configuration and of the number of records, and leaves
    with its code. What is raised afterwards may depend on a record: all of it leaves as one refusal.

    Attributes:
        epsilon: the run's spending with this round; 0 before it is charged.
        witness: the ledger's entry, if others may know it.

    """

    def __init__(
        self,
        runtime: ModelRuntime,
        instruction: Instruction,
        client: int,
        enforcer: PolicyEnforcer,
        rounds: PrivateRounds,
        release: str,
    ) -> None:
        self._runtime, self._instruction, self._client = runtime, instruction, client
        self._enforcer, self._rounds, self._release = enforcer, rounds, release
        self.epsilon = 0.0
        self.witness: LedgerWitness | None = None
        self._paid = False

    def __call__(self) -> Sequence[Any]:
        """Charge the round, then read the records."""
        event = self._rounds.event()
        self.epsilon, self.witness = self._enforcer.charge(
            self._runtime, self._client, self._instruction, event, self._release
        )
        self._paid = True
        self._enforcer.require_data(self._runtime, self._client)
        return self._runtime.data.private(self._client)

    @contextmanager
    def released(self) -> Iterator[None]:
        """Let no failure out of the block, once it was paid for, but the one refusal (FEDFT-8325)."""
        try:
            yield
        except Exception:
            if not self._paid:
                raise
            traceback.print_exc(file=sys.stderr)
            raise withheld() from None


def train_charged(
    runtime: ModelRuntime, instruction: Instruction, identity: ClientIdentity, enforcer: PolicyEnforcer
) -> PrivacyStatement:
    """Train one round privately and return what may be said about it.

    The charge is on disk before a record is read.

    Raises:
        FedftError: FEDFT-8325 for whatever happens after the charge.

    """
    client, config, number = identity.partition, runtime.config, instruction.round.round
    rounds = private_round(config, enforcer.examples(runtime, client), number)
    release = stage_of(config, number).value
    samples = ChargedSamples(runtime, instruction, client, enforcer, rounds, release)
    with samples.released():
        train_client(runtime, client, samples, rounds, round_number=number)
    return _statement(runtime, rounds, round_bound(config, number), samples)


def sketch_charged(
    runtime: ModelRuntime, instruction: Instruction, identity: ClientIdentity, enforcer: PolicyEnforcer
) -> tuple[Arrays, Manifest, PrivacyStatement]:
    """Return a noised sketch of the gradients, with its manifest and what may be said about it.

    Raises:
        FedftError: FEDFT-8323 in a run whose frame is not made of sketches, FEDFT-8325 for whatever happens
            after the charge.

    """
    client = identity.partition
    rounds = private_sketch_of(runtime.config, enforcer.examples(runtime, client))
    if rounds is None:
        raise FedftError(
            Code.UNEXPECTED_SKETCH, "a sketch is asked for, and the run's frame is not made of sketches"
        )
    samples = ChargedSamples(runtime, instruction, client, enforcer, rounds, "sketch")
    with samples.released():
        arrays, manifest = sketch_of(runtime, samples, rounds)
    statement = _statement(runtime, rounds, runtime.config.privacy.sketch_max_norm, samples)
    return arrays, manifest, statement


def greet_privately(runtime: ModelRuntime, identity: ClientIdentity, enforcer: PolicyEnforcer) -> None:
    """Try what a private round needs of the client's records, before any round is paid for.

    A site says only whether its records are the enrolled ones. A simulated client, whose records are the
    researcher's own, also fails on the first record that cannot be read.

    Raises:
        FedftError: FEDFT-8325 for records that are not the enrolled ones, FEDFT-8201 to 8208 (the ledger).

    """
    if enforcer.simulated:
        runtime.data.of(identity.partition)
        return
    enforcer.examples(runtime, identity.partition)
    try:
        enforcer.require_data(runtime, identity.partition)
    except Exception:
        traceback.print_exc(file=sys.stderr)
        raise withheld() from None


def _statement(
    runtime: ModelRuntime, rounds: PrivateRounds, bound: float, charged: ChargedSamples
) -> PrivacyStatement:
    return PrivacyStatement(
        mechanism=PrivacyMechanism.DP_SGD,
        unit=PrivacyUnit.EXAMPLE,
        noise_multiplier=rounds.noise_multiplier,
        max_norm=bound,
        sample_rate=rounds.event().sample_rate,
        steps=rounds.steps,
        epsilon=charged.epsilon,
        delta=runtime.config.privacy.delta,
        accountant=ACCOUNTANT,
        ledger=charged.witness,
    )


def simulated_journal(identity: ClientIdentity, run_id: str) -> ReplyJournal:
    """Return what a simulated client has answered in private rounds; a site's daemon keeps its own.

    A round that the server repeats is answered with the update that was charged.
    """
    folder = identity.folders.state / "replies" / checked_name(run_id)
    return ReplyJournal(folder / f"{checked_name(identity.client)}.sqlite")
