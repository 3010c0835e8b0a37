"""The last global states that this process was sent, which the next broadcast may be the difference to."""

from __future__ import annotations

from collections import OrderedDict

from fedft.codecs import CodecContext, Manifest, decode, state_digest
from fedft.errors import Code, FedftError
from fedft.methods import Method
from fedft.tensors import Arrays
from fedft.wire import Instruction

_KEPT = 2


class StateCache:
    """The last two states by digest; one process may serve clients that are a round apart."""

    def __init__(self) -> None:
        self._states: OrderedDict[str, Arrays] = OrderedDict()

    def of(self, instruction: Instruction, manifest: Manifest, method: Method) -> Arrays | None:
        """Return the state that an instruction carries, or None when it is a difference to an unknown one.

        Raises:
            FedftError: FEDFT-7022 when the state has another digest than the instruction says, and what
                decoding raises.

        """
        expected = instruction.model.global_state_digest
        base = self._states.get(instruction.delta_base_digest)
        if instruction.delta_base_digest and base is None:
            return None
        state = decode(instruction.global_state, manifest, CodecContext(seed=instruction.codec_seed))
        if base is not None:
            state = method.next_state(base, state)
        found = state_digest(state)
        if found != expected:
            raise FedftError(
                Code.STATE_DIGEST_MISMATCH,
                f"the state has digest {found[:16]}…, the instruction says {expected[:16]}…",
            )
        self._states[found] = state
        self._states.move_to_end(found)
        while len(self._states) > _KEPT:
            self._states.popitem(last=False)
        return state
