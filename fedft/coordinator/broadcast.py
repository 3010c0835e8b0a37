"""Instructions for a cohort: encoded once, with the setup for those who lack it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fedft.coordinator.exchange import Answer, Request
from fedft.errors import FedftError
from fedft.store import Delivery
from fedft.wire import (
    Acknowledgement,
    Instruction,
    NeedSetup,
    Reply,
    Setup,
    decode_reply,
    encode_instruction,
    open_envelope,
    reply_kind,
    seal,
)
from fedft.wire.setups import setup_bytes

_MAX_REQUEST = 2**12
"""No request for the setup is larger; a larger envelope is not opened to see whether it is one."""


class Broadcast:
    """One instruction to many clients, encoded once for all that need the same bytes.

    Args:
        instruction: with the whole state.
        setup: travels along to those who do not hold it yet.
        delta: the same instruction with the state as a difference, for those who hold its base.
        acknowledgements: by client, the server's verdict on its last update.

    """

    def __init__(
        self,
        instruction: Instruction,
        setup: Setup,
        delta: Instruction | None = None,
        acknowledgements: Mapping[str, Acknowledgement] | None = None,
    ) -> None:
        self.instruction = instruction
        self._setup = setup
        self._setup_size = len(setup_bytes(setup))
        self._delta = delta
        self._acknowledgements = acknowledgements or {}
        self._encoded: dict[object, bytes] = {}

    def request(self, client: str, node_id: int, *, has_setup: bool, has_base: bool = False) -> Request:
        """Address the instruction to one client."""
        return self._addressed(Request(client, node_id, b""), has_setup=has_setup, has_base=has_base)

    def follow_up(self, answer: Answer) -> Request | None:
        """Send everything to a client that says it lacks something; None for every other answer."""
        request = answer.request
        everything = self._envelope(request.client, has_setup=False, has_base=False)
        if request.envelope is everything or not lacks_setup(answer.envelope):
            return None
        return self._addressed(request, has_setup=False, has_base=False)

    def _addressed(self, request: Request, *, has_setup: bool, has_base: bool) -> Request:
        envelope = self._envelope(request.client, has_setup=has_setup, has_base=has_base)
        setup = 0 if has_setup else self._setup_size
        return replace(
            request,
            envelope=envelope,
            bytes_down=request.bytes_down + len(envelope) - setup,
            bytes_setup=request.bytes_setup + setup,
        )

    def _envelope(self, client: str, *, has_setup: bool, has_base: bool) -> bytes:
        acknowledged = self._acknowledgements.get(client)
        key = (has_setup, has_base, acknowledged)
        if key not in self._encoded:
            chosen = self._delta if has_base and self._delta else self.instruction
            instruction = replace(
                chosen,
                setup=None if has_setup else self._setup,
                acknowledgements=() if acknowledged is None else (acknowledged,),
            )
            self._encoded[key] = seal(encode_instruction(instruction))
        return self._encoded[key]


def read_reply(envelope: bytes, max_bytes: int) -> Reply:
    """Open and decode a client's envelope; FEDFT-4xxx when it is not one."""
    return decode_reply(open_envelope(envelope, max_bytes=max_bytes))


def lacks_setup(envelope: bytes) -> bool:
    """Whether an envelope is a client's request for the setup."""
    try:
        return reply_kind(open_envelope(envelope, max_bytes=_MAX_REQUEST)) is NeedSetup
    except FedftError:
        return False


def delivery(answer: Answer, setup_digest: str) -> Delivery | None:
    """Return what was delivered if the client answered and the setup was part of what it got."""
    if answer.failure or not answer.request.bytes_setup:
        return None
    return Delivery(answer.request.client, setup_digest)
