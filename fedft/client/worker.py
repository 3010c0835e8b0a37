"""The worker: keeps the model in memory and answers one instruction after the other."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import replace

import numpy as np

from fedft.client.clipped import clip_update
from fedft.client.consent import MEANS_OVER_SAMPLES, Consent, is_private, refuse_private_frame
from fedft.client.memory import OUT_OF_MEMORY, is_out_of_memory
from fedft.client.place import Place
from fedft.client.private_round import simulated_journal, sketch_charged, train_charged
from fedft.client.residuals import Residuals
from fedft.client.setups import SetupCache
from fedft.client.states import RecentStates
from fedft.codecs import CodecContext, Shard, codec_from_spec, codec_versions
from fedft.codecs.bench import relative_error
from fedft.codecs.bounded import encode_bounded
from fedft.codecs.configured import uses_error_feedback
from fedft.config import RunConfig
from fedft.config.load import from_json
from fedft.errors import FedftError
from fedft.models.load import load_count
from fedft.privacy.outgoing import check_outgoing, outgoing_message
from fedft.privacy.policy import ANY
from fedft.store.files import Arrays
from fedft.training.seeds import derive_seed
from fedft.training.session import Session
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

    def __init__(self, setups: SetupCache | None = None, residuals: Residuals | None = None) -> None:
        self._setups = setups or SetupCache()
        self._residuals = residuals or Residuals()
        self._states = RecentStates()
        self._session: Session | None = None
        self._private = False

    def handle(self, envelope: bytes, place: Place) -> bytes:
        """Answer a sealed instruction with a sealed reply; a failure is a refusal with its code."""
        return seal(encode_reply(self._reply(envelope, place)))

    def _reply(self, envelope: bytes, place: Place) -> Reply:
        at = RoundRef("", 0)
        self._private = False
        try:
            instruction = decode_instruction(open_envelope(envelope, max_bytes=_MAX_INSTRUCTION))
            at = instruction.round
            return self._answer(instruction, place)
        except FedftError as error:
            return self._refusal(at, place, error.code, f"{error.message} {error.hint}".strip())
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            code = OUT_OF_MEMORY if is_out_of_memory(error) else "FEDFT-7010"
            return self._refusal(at, place, code, f"the client failed: {type(error).__name__}: {error}"[:500])

    def _refusal(self, at: RoundRef, place: Place, code: str, message: str) -> Refusal:
        if self._private:
            print(f"{code} {message}", file=sys.stderr)
            message = outgoing_message(code, message)
        return Refusal(at, code, message, place.client)

    def _answer(self, instruction: Instruction, place: Place) -> Reply:
        loads = load_count()
        if instruction.setup is not None:
            self._setups.keep(instruction.setup_digest, instruction.setup)
        setup = instruction.setup or self._setups.find(instruction.setup_digest)
        if setup is None:
            return NeedSetup(instruction.round, instruction.setup_digest)
        config = place.localise(from_json(setup.config_json))
        self._private = is_private(config)
        consent = Consent.of(place, config, instruction.round.run_id)
        session = self._session_for(config)
        _check_place(session, place)
        consent.check(session, instruction)
        if instruction.kind is InstructionKind.HELLO:
            return _hello(session, place)
        if instruction.kind is InstructionKind.SKETCH:
            return _answer_once(
                instruction, place, consent, lambda: _sketch(session, instruction, place, consent)
            )
        refuse_private_frame(config, setup.frame)
        session.attach_once(setup.frame, instruction.model.frame_digest)
        _check_base(session, instruction)
        state = self._states.of(instruction, session.manifest)
        if state is None:
            return NeedSetup(instruction.round, instruction.setup_digest)
        session.load(state)
        if instruction.kind is InstructionKind.EVALUATE:
            return _evaluate(session, instruction, place)
        if self._private:
            return _answer_once(
                instruction,
                place,
                consent,
                lambda: _train_private(session, instruction, place, state, self._residuals, consent),
            )
        update = _train(session, instruction, place, state, self._residuals, load_count() - loads)
        return replace(update, metrics=_allowed(update.metrics, consent.metrics))

    def _session_for(self, config: RunConfig) -> Session:
        if self._session is None or self._session.config != config:
            self._session = None  # let go of the old model before the new one is loaded
            self._session = Session(config)
        return self._session


def _check_place(session: Session, place: Place) -> None:
    clients = session.config.data.partition.clients
    if place.partitions != clients:
        raise FedftError(
            "FEDFT-7004",
            f"{place.partitions} simulated nodes, but data.partition.clients is {clients}",
            hint="start as many nodes as there are clients",
        )


def _check_base(session: Session, instruction: Instruction) -> None:
    expected = instruction.model.base_digest
    if session.base_digest != expected:
        raise FedftError(
            "FEDFT-2010", f"base model {session.base_digest[:16]}…, the run's is {expected[:16]}…"
        )


def _hello(session: Session, place: Place) -> Hello:
    # A private client does not say how many of its records are of use.
    examples = 0 if is_private(session.config) else len(session.client_data(place.partition).train)
    return Hello(place.client, session.base_digest, examples, WIRE_VERSION, codec_versions())


def _train(
    session: Session, instruction: Instruction, place: Place, state: Arrays, residuals: Residuals, loads: int
) -> Update:
    number = instruction.round.round
    report = session.train(place.partition, round_number=number, key=place.client)
    trained = session.state()
    change = {name: trained[name] - state[name] for name in state}
    delta, told = clip_update(session.config, instruction, change, session.manifest)
    shards, lost = _encode(session, instruction, place, delta, residuals)
    return Update(
        round=instruction.round,
        model=instruction.model,
        client_id=place.client,
        update_seq=number,
        num_examples=report.examples,
        shards=shards,
        metrics=report.metrics | {"model_loads": float(loads), "codec_error": lost} | told,
    )


def _answer_once(
    instruction: Instruction, place: Place, consent: Consent, release: Callable[[], Update]
) -> Reply:
    """Make a private release, or give the answer that this instruction was given before."""
    if not consent.simulated:  # a site's daemon has looked into its journal before it asked
        return release()
    with closing(simulated_journal(place, instruction.round.run_id)) as journal:
        known = journal.find(instruction)
        if known is not None:
            return decode_reply(known)
        update = release()
        journal.keep(instruction, encode_reply(update))
        return update


def _train_private(
    session: Session,
    instruction: Instruction,
    place: Place,
    state: Arrays,
    residuals: Residuals,
    consent: Consent,
) -> Update:
    statement = train_charged(session, instruction, place, consent)
    trained = session.state()
    # From here on everything is computed from noised values: error feedback and code cost nothing more.
    delta = {name: trained[name] - state[name] for name in state}
    shards, lost = _encode(session, instruction, place, delta, residuals)
    metrics = {"steps": float(statement.steps), "codec_error": lost}
    return Update(
        round=instruction.round,
        model=instruction.model,
        client_id=place.client,
        update_seq=instruction.round.round,
        num_examples=0,
        shards=shards,
        metrics=check_outgoing(metrics, private=True, allowed=consent.metrics),
        privacy=statement,
    )


def _sketch(session: Session, instruction: Instruction, place: Place, consent: Consent) -> Update:
    _check_base(session, instruction)
    arrays, manifest, statement = sketch_charged(session, instruction, place, consent)
    codec = codec_from_spec(instruction.accepted_codecs[0])
    return Update(
        round=instruction.round,
        model=instruction.model,
        client_id=place.client,
        update_seq=0,
        num_examples=0,
        shards=tuple(codec.encode(arrays, manifest, CodecContext(seed=instruction.codec_seed))),
        privacy=statement,
    )


def _allowed(metrics: Mapping[str, float], names: Collection[str]) -> dict[str, float]:
    """Keep what the site policy lets out."""
    return {name: value for name, value in metrics.items() if ANY in names or name in names}


def _encode(
    session: Session, instruction: Instruction, place: Place, delta: Arrays, residuals: Residuals
) -> tuple[tuple[Shard, ...], float]:
    """Code an update; also return the share of its L2 norm that the code leaves out."""
    config, number, manifest = session.config, instruction.round.round, session.manifest
    codec = codec_from_spec(instruction.accepted_codecs[0])
    rounding = np.random.default_rng(derive_seed(config.seed, "rounding", number, place.client))
    context = CodecContext(seed=instruction.codec_seed, generator=rounding)
    if uses_error_feedback(config.codec):
        # What was left out of updates without noise must never be added to one with noise.
        owner = f"{place.client}.private" if is_private(config) else place.client
        shards, wanted = residuals.encode(delta, codec, context, manifest, instruction, owner)
    else:
        most = instruction.max_update_norm
        shards, wanted = tuple(encode_bounded(delta, codec, manifest, context, most)), delta
    return shards, relative_error(wanted, shards, manifest, context)


def _evaluate(session: Session, instruction: Instruction, place: Place) -> Evaluation:
    metrics = session.evaluate_client(place.partition)
    # Only means over samples: the server weighs them by the number of samples.
    values = {name: value for name, value in metrics.values().items() if name in MEANS_OVER_SAMPLES}
    return Evaluation(instruction.round, instruction.model, place.client, metrics.samples, values)
