"""A client's masks of a round: its own, and one with each other member of the cohort."""

from __future__ import annotations

from fedft.secagg.client_state import ClientState
from fedft.secagg.keys import agree, mask_private, pair_mask_key, self_mask_key
from fedft.secagg.masks import Words, add_mask
from fedft.secagg.messages import Roster
from fedft.secagg.session import Session


def mask_words(
    words: Words,
    session: Session,
    state: ClientState,
    number: int,
    roster: Roster,
    round: int,
    cohort: tuple[int, ...],
) -> None:
    """Mask words in place. The lower-numbered of two members adds their mask, the other subtracts it.

    Over the whole cohort the masks of pairs cancel.
    """
    place = session.place(round)
    secrets = state.rounds[place]
    own = mask_private(secrets.key_seed, session.digest, round, number)
    add_mask(words, self_mask_key(secrets.seed, session.digest, round, number))
    for other in cohort:
        if other != number:
            secret = agree(own, roster.advertisements[other].rounds[place].mask_key)
            key = pair_mask_key(secret, session.digest, round, number, other)
            add_mask(words, key, subtract=other < number)
