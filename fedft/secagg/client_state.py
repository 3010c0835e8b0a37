"""A client's secrets and what it has got of the others', in memory and as bytes."""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedft.errors import Code, FedftError
from fedft.secagg.decode import decode_roster
from fedft.secagg.encode import encode
from fedft.secagg.keys import KEY_BYTES, SEED_BYTES, commitment, mask_private
from fedft.secagg.messages import Advertisement, Roster, RoundKeys
from fedft.secagg.session import Session

_FORMAT = "fedft secagg client 1"


@dataclass(frozen=True)
class RoundSecrets:
    """One round's seeds, 16 bytes each: of the key for pairwise masks, and of the client's own mask."""

    key_seed: bytes
    seed: bytes


@dataclass
class ClientState:
    """Everything of a client in a session but its journal. It holds secrets: store it as private keys are.

    Attributes:
        sealing_key: raw X25519 private key.
        rounds: secrets of each round.
        roster: the keys of U1, once known.
        held: by dealer, this client included: shares of seed and mask key, for each round in turn.
        cohort: U2, once known; empty before.

    """

    sealing_key: bytes
    rounds: tuple[RoundSecrets, ...]
    roster: Roster | None = None
    held: dict[int, list[int]] = field(default_factory=dict)
    cohort: tuple[int, ...] = ()

    @classmethod
    def fresh(cls, rounds: int) -> ClientState:
        """Draw new secrets from the operating system."""
        secrets = (RoundSecrets(os.urandom(SEED_BYTES), os.urandom(SEED_BYTES)) for _ in range(rounds))
        return cls(os.urandom(KEY_BYTES), tuple(secrets))

    def advertisement(self, session: Session, member: int) -> Advertisement:
        """Give the public half, unsigned."""
        keys = tuple(
            RoundKeys(
                mask_private(secrets.key_seed, session.digest, round, member).public_key().public_bytes_raw(),
                commitment(secrets.seed, session.digest, round, member),
            )
            for round, secrets in enumerate(self.rounds, session.first_round)
        )
        return Advertisement(session.digest, public(self.sealing_key), keys)

    def forget(self, place: int) -> None:
        """Drop what belongs to one round, whose part is done: the state tells nothing about it any more."""
        nothing = RoundSecrets(bytes(SEED_BYTES), bytes(SEED_BYTES))
        self.rounds = (*self.rounds[:place], nothing, *self.rounds[place + 1 :])
        for shares in self.held.values():
            shares[2 * place : 2 * place + 2] = [0, 0]

    def to_bytes(self, session: Session) -> bytes:
        """Serialise, bound to the session."""
        facts = {
            "format": _FORMAT,
            "session": session.digest.hex(),
            "sealing_key": self.sealing_key.hex(),
            "rounds": [[secrets.key_seed.hex(), secrets.seed.hex()] for secrets in self.rounds],
            "roster": None if self.roster is None else b64encode(encode(self.roster)).decode(),
            "held": {str(dealer): [hex(share) for share in shares] for dealer, shares in self.held.items()},
            "cohort": list(self.cohort),
        }
        return json.dumps(facts).encode()

    @classmethod
    def from_bytes(cls, data: bytes, session: Session) -> ClientState:
        """Read what ``to_bytes`` wrote; raises FEDFT-8825 when it is damaged or another session's."""
        try:
            facts = json.loads(data)
            if facts["format"] != _FORMAT or facts["session"] != session.digest.hex():
                raise ValueError("another format or session")
            return cls(
                bytes.fromhex(facts["sealing_key"]),
                tuple(RoundSecrets(bytes.fromhex(a), bytes.fromhex(b)) for a, b in facts["rounds"]),
                _roster(facts["roster"]),
                {int(dealer): [int(share, 16) for share in row] for dealer, row in facts["held"].items()},
                tuple(int(member) for member in facts["cohort"]),
            )
        except (ValueError, KeyError, TypeError, FedftError) as error:
            raise FedftError(
                Code.SECAGG_STATE_DAMAGED, f"not the state of a client in this session: {error}"
            ) from None


def public(private: bytes) -> bytes:
    """Give the raw X25519 public key of a raw private one."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def _roster(encoded: Any) -> Roster | None:
    return None if encoded is None else decode_roster(b64decode(encoded))
