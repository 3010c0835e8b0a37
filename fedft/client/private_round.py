"""A client's part in a private round: charged, trained, stated."""

from __future__ import annotations

from importlib.metadata import version

from fedft.client.consent import Consent
from fedft.client.journal import Journal
from fedft.client.place import Place
from fedft.client.residuals import checked_name, state_folder
from fedft.privacy.configured import private_rounds
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
    _, epsilon = consent.charge(session, place, instruction, rounds)
    session.train_private(place.partition, rounds, round_number=instruction.round.round)
    event = rounds.event()
    return PrivacyStatement(
        mechanism=PrivacyMechanism.DP_SGD,
        unit=PrivacyUnit.EXAMPLE,
        noise_multiplier=rounds.noise_multiplier,
        max_grad_norm=session.config.privacy.max_grad_norm,
        sample_rate=event.sample_rate,
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
