"""Making a private release once, however often the server asks for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from fedft.client.worker.context import InstructionContext
from fedft.client.worker.private_round import simulated_journal
from fedft.wire import Reply, Update, decode_reply, encode_reply


def release_once(context: InstructionContext, release: Callable[[], Update]) -> Reply:
    """Make a private release, or give the answer that this instruction was given before."""
    if not context.enforcer.simulated:  # a site's daemon has looked into its journal before it asked
        return release()
    instruction = context.instruction
    with closing(simulated_journal(context.identity, instruction.round.run_id)) as journal:
        known = journal.find(instruction)
        if known is not None:
            return decode_reply(known)
        update = release()
        journal.keep(instruction, encode_reply(update))
        return update
