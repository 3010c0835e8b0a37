"""Putting the state that an instruction carries into the model."""

from __future__ import annotations

from fedft.client.site.enforcement import refuse_private_frame
from fedft.client.worker.context import InstructionContext
from fedft.client.worker.state_cache import StateCache
from fedft.tensors import Arrays


def load_global_state(context: InstructionContext, states: StateCache) -> Arrays | None:
    """Attach the run's frame, load the round's state and return it.

    Returns None where the instruction carries a difference to a state that this process does not hold.

    Raises:
        FedftError: FEDFT-2010 (another base), FEDFT-2103 and FEDFT-8322 (the frame), FEDFT-7022 (the state).

    """
    runtime, instruction, frame = context.runtime, context.instruction, context.setup.frame
    refuse_private_frame(runtime.config, frame, deployed=context.identity.site is not None)
    runtime.attach_once(frame, instruction.model.frame_digest)
    context.require_base()
    state = states.of(instruction, runtime.manifest, runtime.method)
    if state is not None:
        runtime.load(state)
    return state
