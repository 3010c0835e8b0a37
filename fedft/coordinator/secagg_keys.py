"""Keys that the clients of a run share before they mask: exchanged for one round or several."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fedft.config import RunConfig
from fedft.coordinator.participants import Participants
from fedft.coordinator.secagg_steps import StepDriver
from fedft.secagg import decode
from fedft.secagg.encode import encode
from fedft.secagg.key_exchange import KeyExchange, expect_going_on
from fedft.secagg.session import Session, smallest_threshold
from fedft.wire import InstructionKind


class SharedKeys:
    """A finished key exchange, and which clients can mask with it.

    Args:
        exchange: finished.
        names: the members' names, by their numbers in the session.
        ready: those that have the others' shares.

    """

    def __init__(self, exchange: KeyExchange, names: Sequence[str], ready: Collection[str]) -> None:
        self.exchange, self.names, self.ready = exchange, tuple(names), frozenset(ready)
        self.numbers = {name: number for number, name in enumerate(names)}

    def serve(self, number: int, cohort: Collection[str]) -> bool:
        """Whether a round can be masked with these keys."""
        session = self.exchange.session
        covered = session.first_round <= number < session.first_round + session.rounds
        return covered and len(self.ready.intersection(cohort)) >= session.threshold

    @classmethod
    def exchanged(cls, terms: Session, names: Sequence[str], steps: StepDriver) -> SharedKeys:
        """Exchange keys: two answers of each client, and its receipt of the others' shares.

        Raises:
            FedftError: FEDFT-8822 when too few clients get through a step.

        """
        exchange, numbers = KeyExchange(terms), {name: number for number, name in enumerate(names)}

        def take_keys(client: str, message: bytes) -> None:
            exchange.take_advertisement(numbers[client], decode.decode_advertisement(message))

        def take_shares(client: str, message: bytes) -> None:
            exchange.take_shares(numbers[client], decode.decode_shares(message))

        steps.ask(InstructionKind.ADVERTISE, dict.fromkeys(names, encode(terms)), take_keys)
        roster = exchange.close_advertisements()
        sharing = [names[member] for member in roster.members]
        steps.ask(InstructionKind.SHARE, dict.fromkeys(sharing, encode(roster)), take_shares)
        ready: set[str] = set()
        deliveries = {names[member]: encode(exchange.delivery(member)) for member in exchange.close_shares()}
        steps.ask(InstructionKind.RECEIVE, deliveries, lambda client, _receipt: ready.add(client))
        expect_going_on(ready, terms, "received the others' shares")
        return cls(exchange, names, ready)


def session_terms(
    config: RunConfig,
    run_id: str,
    frame_digest: str,
    number: int,
    cohort: Collection[str],
    participants: Participants,
) -> tuple[Session, list[str]]:
    """Return the terms of a session from round ``number`` on, and its members' names by their numbers.

    Keys serve several rounds where all clients are asked in each; a cohort that is drawn anew needs new ones.

    Raises:
        FedftError: FEDFT-8801, 8802 when the cohort is too small for the run's threshold.

    """
    settings, rounds = config.secagg, config.rounds
    names = sorted(cohort, key=lambda name: participants[name].identity)
    served = 1 if rounds.cohort else min(settings.rounds_per_keys, rounds.total - number + 1)
    terms = Session(
        run_id,
        number,
        served,
        bytes.fromhex(frame_digest),
        tuple(participants[name].identity for name in names),
        settings.threshold or smallest_threshold(len(names)),
    )
    return terms, names
