"""One instruction with everything at this client that it is answered from, and what answers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fedft.client.site.enforcement import PolicyEnforcer
from fedft.client.site.identity import ClientIdentity
from fedft.errors import Code, FedftError
from fedft.training.model_runtime import ModelRuntime
from fedft.wire import Instruction, Reply, Setup


@dataclass(frozen=True)
class InstructionContext:
    """An instruction that the client's policy allows, and the model that it is about.

    Attributes:
        instruction: as it came.
        setup: the configuration and frame that the instruction names.
        identity: the client that is asked.
        enforcer: its policy and ledger.
        runtime: the base model and the client's data, localised.
        loads_before: models that this process had loaded when the instruction came.

    """

    instruction: Instruction
    setup: Setup
    identity: ClientIdentity
    enforcer: PolicyEnforcer
    runtime: ModelRuntime
    loads_before: int = 0

    def require_base(self) -> None:
        """Refuse to work on another base model than the run's (FEDFT-2010)."""
        expected, found = self.instruction.model.base_digest, self.runtime.base_digest
        if found != expected:
            raise FedftError(
                Code.BASE_MODEL_MISMATCH, f"base model {found[:16]}…, the run's is {expected[:16]}…"
            )


class Handler(Protocol):
    """Answers one kind of instruction.

    A worker keeps one handler of each kind for as long as it lives, so a handler may remember something from
    one instruction to the next. What must survive the process belongs on disk, and what belongs to one client
    must be kept by run and client: a worker may answer for several simulated clients.
    """

    def answer(self, context: InstructionContext) -> Reply:
        """Return the reply; an error becomes a refusal with its code."""
