"""A client's part in a private round: charged, trained, stated."""

from __future__ import annotations

from importlib.metadata import version

from fedft.client.consent import Consent
from fedft.client.journal import Journal
from fedft.client.place import Place
from fedft.client.residuals import checked_name, state_folder
from fedft.codecs import Manifest
from fedft.errors import FedftError
from fedft.privacy.configured import PrivateRounds, private_rounds, private_sketch_of
from fedft.store.files import Arrays
from fedft.training.private_client import sketch_of, train_client
from fedft.training.session import Session
from fedft.wire import Instruction, PrivacyMechanism, PrivacyStatement, PrivacyUnit


def train_charged(
    session: Session, instruction: Instruction, place: Place, consent: Consent
) -> PrivacyStatement:
    """Train one round privately and return what may be said about it.

    The charge is on disk before the first sample is drawn. The data are read before the charge, so that a
    file that is missing costs nothing.
    """
    rounds = private_rounds(session.config, session.records.count(place.partition))
    session.client_data(place.partition)
    _, epsilon = consent.charge(session, place, instruction, rounds.event())
    train_client(session, place.partition, rounds, round_number=instruction.round.round)
    return _statement(session, rounds, session.config.privacy.max_grad_norm, epsilon)


def sketch_charged(
    session: Session, instruction: Instruction, place: Place, consent: Consent
) -> tuple[Arrays, Manifest, PrivacyStatement]:
    """Return a noised sketch of the gradients, with its manifest and what may be said about it.

    Raises:
        FedftError: FEDFT-8323 in a run whose frame is not made of sketches.

    """
    rounds = private_sketch_of(session.config, session.records.count(place.partition))
    if rounds is None:
        raise FedftError("FEDFT-8323", "a sketch is asked for, and the run's frame is not made of sketches")
    session.client_data(place.partition)
    _, epsilon = consent.charge(session, place, instruction, rounds.event())
    arrays, manifest = sketch_of(session, place.partition, rounds)
    return arrays, manifest, _statement(session, rounds, session.config.privacy.sketch_max_norm, epsilon)


def _statement(session: Session, rounds: PrivateRounds, bound: float, epsilon: float) -> PrivacyStatement:
    return PrivacyStatement(
        mechanism=PrivacyMechanism.DP_SGD,
        unit=PrivacyUnit.EXAMPLE,
        noise_multiplier=rounds.noise_multiplier,
        max_grad_norm=bound,
        sample_rate=rounds.event().sample_rate,
        steps=rounds.steps,
        epsilon=epsilon,
        delta=session.config.privacy.delta,
        accountant=f"pld, dp-accounting {version('dp-accounting')}",
    )


def simulated_journal(place: Place, run_id: str) -> Journal:
    """Return what a simulated client has answered in private rounds; a site's daemon keeps its own.

    A round that the server repeats is answered with the update that was charged.
    """
    folder = state_folder() / "replies" / checked_name(run_id)
    return Journal(folder / f"{checked_name(place.client)}.sqlite")
