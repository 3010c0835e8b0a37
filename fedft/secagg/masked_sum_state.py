"""A round's state at the server as bytes, so that a server that restarts goes on with the same round."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping

import numpy as np

from fedft.errors import Code, FedftError
from fedft.secagg.key_exchange import KeyExchange
from fedft.secagg.masked_sum import MaskedSum
from fedft.secagg.messages import Payload

_FORMAT = "fedft secagg masked sum 1"


def masked_sum_to_bytes(masked_sum: MaskedSum) -> bytes:
    """Serialise; before the round is unmasked it tells no more than the messages that came in."""
    payload = masked_sum.payload
    facts = {
        "format": _FORMAT,
        "session": masked_sum.session.digest.hex(),
        "round": masked_sum.round,
        "payload": [payload.elements, payload.largest, payload.grid.hex()],
        "survivors": list(masked_sum.survivors),
        "words": b64encode(masked_sum.words.astype("<u8").tobytes()).decode(),
        "whole_attestations": _texts(masked_sum.whole_attestations),
        "attestations": _texts(masked_sum.attestations),
        "unmasking": masked_sum.unmasking,
        "replies": {
            str(holder): {str(dealer): hex(share) for dealer, share in reply.items()}
            for holder, reply in masked_sum.replies.items()
        },
    }
    return json.dumps(facts).encode()


def masked_sum_from_bytes(data: bytes, exchange: KeyExchange) -> MaskedSum:
    """Read what ``masked_sum_to_bytes`` wrote; raises FEDFT-8825 when it is damaged or another session's."""
    try:
        facts = json.loads(data)
        if facts["format"] != _FORMAT or facts["session"] != exchange.session.digest.hex():
            raise ValueError("another format or session")
        elements, largest, grid = facts["payload"]
        masked_sum = MaskedSum(
            exchange, int(facts["round"]), Payload(int(elements), int(largest), bytes.fromhex(grid))
        )
        words = np.frombuffer(b64decode(facts["words"]), dtype="<u8").astype(np.uint64)
        if words.shape != masked_sum.words.shape:
            raise ValueError(f"{words.size} words")
        masked_sum.words = words
        masked_sum.survivors = tuple(int(member) for member in facts["survivors"])
        masked_sum.whole_attestations = _bytes(facts["whole_attestations"])
        masked_sum.attestations = _bytes(facts["attestations"])
        masked_sum.unmasking = bool(facts["unmasking"])
        masked_sum.replies = {
            int(holder): {int(dealer): int(share, 16) for dealer, share in reply.items()}
            for holder, reply in facts["replies"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, FedftError) as error:
        raise FedftError(
            Code.SECAGG_STATE_DAMAGED, f"not the state of a round of this session: {error}"
        ) from None
    return masked_sum


def _texts(signatures: Mapping[int, bytes]) -> dict[str, str]:
    return {str(member): signature.hex() for member, signature in signatures.items()}


def _bytes(texts: Mapping[str, str]) -> dict[int, bytes]:
    return {int(member): bytes.fromhex(text) for member, text in texts.items()}
