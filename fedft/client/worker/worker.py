"""The worker: keeps the model in memory and answers one instruction after the other."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping

from fedft.client.site.enforcement import PolicyEnforcer
from fedft.client.site.folders import ClientFolders
from fedft.client.site.identity import ClientIdentity
from fedft.client.worker.context import Handler, InstructionContext
from fedft.client.worker.handlers import handler_of, new_handlers
from fedft.client.worker.out_of_memory import is_out_of_memory
from fedft.client.worker.residual_store import ResidualStore
from fedft.client.worker.setup_cache import SetupCache
from fedft.config import RunConfig
from fedft.config.load import from_json
from fedft.errors import Code, FedftError
from fedft.models.load import load_count
from fedft.privacy.models.interface import privacy_model
from fedft.privacy.site.disclosure import outgoing_message
from fedft.training.model_runtime import ModelRuntime
from fedft.wire import (
    Instruction,
    InstructionKind,
    NeedSetup,
    Refusal,
    Reply,
    RoundRef,
    decode_instruction,
    encode_reply,
    open_envelope,
    seal,
)

_MAX_INSTRUCTION = 2**31 - 1


class Worker:
    """Answers instructions for one or several clients of this process.

    The base model and its adapters stay in memory across instructions and rounds; only the state is
    swapped. What a client is given it keeps no longer than the instruction: everything that a later
    round needs comes from the server or from disk.

    Args:
        folders: of the client, or of all clients of this process; None for the user's.
        handlers: by kind of instruction; None for those of this build.

    """

    def __init__(
        self,
        folders: ClientFolders | None = None,
        handlers: Mapping[InstructionKind, Handler] | None = None,
    ) -> None:
        folders = folders or ClientFolders.of_user()
        self._setups = SetupCache(folders.cache)
        self._handlers = handlers or new_handlers(ResidualStore(folders.state))
        self._runtime: ModelRuntime | None = None
        self._private = False

    def handle(self, envelope: bytes, identity: ClientIdentity) -> bytes:
        """Answer a sealed instruction with a sealed reply; a failure is a refusal with its code."""
        return seal(encode_reply(self._reply(envelope, identity)))

    def _reply(self, envelope: bytes, identity: ClientIdentity) -> Reply:
        at = RoundRef("", 0)
        self._private = False
        try:
            instruction = decode_instruction(open_envelope(envelope, max_bytes=_MAX_INSTRUCTION))
            at = instruction.round
            return self._answer(instruction, identity)
        except FedftError as error:
            return self._refusal(at, identity, error.code, f"{error.message} {error.hint}".strip())
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            code = Code.OUT_OF_MEMORY if is_out_of_memory(error) else Code.CLIENT_FAILED
            return self._refusal(
                at, identity, code, f"the client failed: {type(error).__name__}: {error}"[:500]
            )

    def _refusal(self, at: RoundRef, identity: ClientIdentity, code: Code, message: str) -> Refusal:
        if self._private or identity.site is not None:
            print(f"{code} {message}", file=sys.stderr)
            message = outgoing_message(code, message)
        return Refusal(at, code, message, identity.client)

    def _answer(self, instruction: Instruction, identity: ClientIdentity) -> Reply:
        loads = load_count()
        handler = handler_of(self._handlers, instruction.kind)
        if instruction.setup is not None:
            self._setups.keep(instruction.setup_digest, instruction.setup)
        setup = instruction.setup or self._setups.find(instruction.setup_digest)
        if setup is None:
            return NeedSetup(instruction.round, instruction.setup_digest)
        config = identity.localise(from_json(setup.config_json))
        self._private = privacy_model(config).charged_at_client
        enforcer = PolicyEnforcer.of(identity, config, instruction.round.run_id)
        runtime = self._runtime_for(config)
        _check_partitions(runtime, identity)
        enforcer.check(runtime, instruction)
        return handler.answer(InstructionContext(instruction, setup, identity, enforcer, runtime, loads))

    def _runtime_for(self, config: RunConfig) -> ModelRuntime:
        if self._runtime is None or self._runtime.config != config:
            self._runtime = None  # let go of the old model before the new one is loaded
            self._runtime = ModelRuntime(config)
        return self._runtime


def _check_partitions(runtime: ModelRuntime, identity: ClientIdentity) -> None:
    clients = runtime.config.data.partition.clients
    if identity.partitions != clients:
        raise FedftError(
            Code.NODE_COUNT_MISMATCH,
            f"{identity.partitions} simulated nodes, but data.partition.clients is {clients}",
            hint="start as many nodes as there are clients",
        )
