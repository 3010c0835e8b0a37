"""The worker: keeps the model in memory and answers one instruction after the other."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import replace

import numpy as np

from fedft.client.site.enforcement import MEANS_OVER_SAMPLES, PolicyEnforcer, is_private, refuse_private_frame
from fedft.client.site.identity import ClientIdentity
from fedft.client.worker.client_clipping import clip_update
from fedft.client.worker.out_of_memory import is_out_of_memory
from fedft.client.worker.private_round import simulated_journal, sketch_charged, train_charged
from fedft.client.worker.residual_store import ResidualStore
from fedft.client.worker.setup_cache import SetupCache
from fedft.client.worker.state_cache import StateCache
from fedft.codecs import CodecContext, Shard, codec_from_spec, codec_versions
from fedft.codecs.bench import relative_error
from fedft.codecs.bounded import encode_bounded
from fedft.codecs.configured import uses_error_feedback
from fedft.config import RunConfig
from fedft.config.load import from_json
from fedft.errors import Code, FedftError
from fedft.models.load import load_count
from fedft.privacy.site.disclosure import check_outgoing, outgoing_message
from fedft.privacy.site.policy import ANY
from fedft.tensors import Arrays
from fedft.training.model_runtime import ModelRuntime
from fedft.training.seeds import derive_seed
from fedft.wire import (
    WIRE_VERSION,
    Evaluation,
    Hello,
    Instruction,
    InstructionKind,
    NeedSetup,
    Refusal,
    Reply,
    RoundRef,
    Update,
    decode_instruction,
    decode_reply,
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
    """

    def __init__(self, setups: SetupCache | None = None, residuals: ResidualStore | None = None) -> None:
        self._setups = setups or SetupCache()
        self._residuals = residuals or ResidualStore()
        self._states = StateCache()
        self._session: ModelRuntime | None = None
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
        if self._private:
            print(f"{code} {message}", file=sys.stderr)
            message = outgoing_message(code, message)
        return Refusal(at, code, message, identity.client)

    def _answer(self, instruction: Instruction, identity: ClientIdentity) -> Reply:
        loads = load_count()
        if instruction.setup is not None:
            self._setups.keep(instruction.setup_digest, instruction.setup)
        setup = instruction.setup or self._setups.find(instruction.setup_digest)
        if setup is None:
            return NeedSetup(instruction.round, instruction.setup_digest)
        config = identity.localise(from_json(setup.config_json))
        self._private = is_private(config)
        enforcer = PolicyEnforcer.of(identity, config, instruction.round.run_id)
        runtime = self._session_for(config)
        _check_partitions(runtime, identity)
        enforcer.check(runtime, instruction)
        if instruction.kind is InstructionKind.HELLO:
            return _hello(runtime, identity)
        if instruction.kind is InstructionKind.SKETCH:
            return _answer_once(
                instruction, identity, enforcer, lambda: _sketch(runtime, instruction, identity, enforcer)
            )
        refuse_private_frame(config, setup.frame)
        runtime.attach_once(setup.frame, instruction.model.frame_digest)
        _check_base(runtime, instruction)
        state = self._states.of(instruction, runtime.manifest)
        if state is None:
            return NeedSetup(instruction.round, instruction.setup_digest)
        runtime.load(state)
        if instruction.kind is InstructionKind.EVALUATE:
            return _evaluate(runtime, instruction, identity)
        if self._private:
            return _answer_once(
                instruction,
                identity,
                enforcer,
                lambda: _train_private(runtime, instruction, identity, state, self._residuals, enforcer),
            )
        update = _train(runtime, instruction, identity, state, self._residuals, load_count() - loads)
        return replace(update, metrics=_allowed(update.metrics, enforcer.metrics))

    def _session_for(self, config: RunConfig) -> ModelRuntime:
        if self._session is None or self._session.config != config:
            self._session = None  # let go of the old model before the new one is loaded
            self._session = ModelRuntime(config)
        return self._session


def _check_partitions(runtime: ModelRuntime, identity: ClientIdentity) -> None:
    clients = runtime.config.data.partition.clients
    if identity.partitions != clients:
        raise FedftError(
            Code.NODE_COUNT_MISMATCH,
            f"{identity.partitions} simulated nodes, but data.partition.clients is {clients}",
            hint="start as many nodes as there are clients",
        )


def _check_base(runtime: ModelRuntime, instruction: Instruction) -> None:
    expected = instruction.model.base_digest
    if runtime.base_digest != expected:
        raise FedftError(
            Code.BASE_MODEL_MISMATCH, f"base model {runtime.base_digest[:16]}…, the run's is {expected[:16]}…"
        )


def _hello(runtime: ModelRuntime, identity: ClientIdentity) -> Hello:
    # A private client does not say how many of its records are of use.
    examples = 0 if is_private(runtime.config) else len(runtime.client_data(identity.partition).train)
    return Hello(identity.client, runtime.base_digest, examples, WIRE_VERSION, codec_versions())


def _train(
    runtime: ModelRuntime,
    instruction: Instruction,
    identity: ClientIdentity,
    state: Arrays,
    residuals: ResidualStore,
    loads: int,
) -> Update:
    number = instruction.round.round
    report = runtime.train(identity.partition, round_number=number, key=identity.client)
    trained = runtime.state()
    change = {name: trained[name] - state[name] for name in state}
    delta, told = clip_update(runtime.config, instruction, change, runtime.manifest)
    shards, lost = _encode(runtime, instruction, identity, delta, residuals)
    return Update(
        round=instruction.round,
        model=instruction.model,
        client_id=identity.client,
        update_seq=number,
        num_examples=report.examples,
        shards=shards,
        metrics=report.metrics | {"model_loads": float(loads), "codec_error": lost} | told,
    )


def _answer_once(
    instruction: Instruction,
    identity: ClientIdentity,
    enforcer: PolicyEnforcer,
    release: Callable[[], Update],
) -> Reply:
    """Make a private release, or give the answer that this instruction was given before."""
    if not enforcer.simulated:  # a site's daemon has looked into its journal before it asked
        return release()
    with closing(simulated_journal(identity, instruction.round.run_id)) as journal:
        known = journal.find(instruction)
        if known is not None:
            return decode_reply(known)
        update = release()
        journal.keep(instruction, encode_reply(update))
        return update


def _train_private(
    runtime: ModelRuntime,
    instruction: Instruction,
    identity: ClientIdentity,
    state: Arrays,
    residuals: ResidualStore,
    enforcer: PolicyEnforcer,
) -> Update:
    statement = train_charged(runtime, instruction, identity, enforcer)
    trained = runtime.state()
    # From here on everything is computed from noised values: error feedback and code cost nothing more.
    delta = {name: trained[name] - state[name] for name in state}
    shards, lost = _encode(runtime, instruction, identity, delta, residuals)
    metrics = {"steps": float(statement.steps), "codec_error": lost}
    return Update(
        round=instruction.round,
        model=instruction.model,
        client_id=identity.client,
        update_seq=instruction.round.round,
        num_examples=0,
        shards=shards,
        metrics=check_outgoing(metrics, private=True, allowed=enforcer.metrics),
        privacy=statement,
    )


def _sketch(
    runtime: ModelRuntime, instruction: Instruction, identity: ClientIdentity, enforcer: PolicyEnforcer
) -> Update:
    _check_base(runtime, instruction)
    arrays, manifest, statement = sketch_charged(runtime, instruction, identity, enforcer)
    codec = codec_from_spec(instruction.accepted_codecs[0])
    return Update(
        round=instruction.round,
        model=instruction.model,
        client_id=identity.client,
        update_seq=0,
        num_examples=0,
        shards=tuple(codec.encode(arrays, manifest, CodecContext(seed=instruction.codec_seed))),
        privacy=statement,
    )


def _allowed(metrics: Mapping[str, float], names: Collection[str]) -> dict[str, float]:
    """Keep what the site policy lets out."""
    return {name: value for name, value in metrics.items() if ANY in names or name in names}


def _encode(
    runtime: ModelRuntime,
    instruction: Instruction,
    identity: ClientIdentity,
    delta: Arrays,
    residuals: ResidualStore,
) -> tuple[tuple[Shard, ...], float]:
    """Code an update; also return the share of its L2 norm that the code leaves out."""
    config, number, manifest = runtime.config, instruction.round.round, runtime.manifest
    codec = codec_from_spec(instruction.accepted_codecs[0])
    rounding = np.random.default_rng(derive_seed(config.seed, "rounding", number, identity.client))
    context = CodecContext(seed=instruction.codec_seed, generator=rounding)
    if uses_error_feedback(config.codec):
        # What was left out of updates without noise must never be added to one with noise.
        owner = f"{identity.client}.private" if is_private(config) else identity.client
        shards, wanted = residuals.encode(delta, codec, context, manifest, instruction, owner)
    else:
        most = instruction.max_update_norm
        shards, wanted = tuple(encode_bounded(delta, codec, manifest, context, most)), delta
    return shards, relative_error(wanted, shards, manifest, context)


def _evaluate(runtime: ModelRuntime, instruction: Instruction, identity: ClientIdentity) -> Evaluation:
    metrics = runtime.evaluate_client(identity.partition)
    # Only means over samples: the server weighs them by the number of samples.
    values = {name: value for name, value in metrics.values().items() if name in MEANS_OVER_SAMPLES}
    return Evaluation(instruction.round, instruction.model, identity.client, metrics.samples, values)
