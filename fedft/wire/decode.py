"""From bytes of anyone to plain values; every field is checked before it is believed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from google.protobuf.message import DecodeError, Message

from fedft.codecs.spec import (
    BlockIntParams,
    CodecSpec,
    DenseParams,
    NamedParams,
    Params,
    RotatedParams,
    Shard,
    TernaryParams,
)
from fedft.errors import Code, FedftError
from fedft.statements import LedgerWitness, PrivacyStatement
from fedft.wire.bounds import check_fields
from fedft.wire.enums import DENSE_TYPES, KINDS, MECHANISMS, RULES, UNITS
from fedft.wire.messages import (
    Acknowledgement,
    Evaluation,
    Hello,
    Instruction,
    InstructionKind,
    ModelRef,
    NeedSetup,
    Refusal,
    Reply,
    RoundRef,
    SecaggAnswer,
    Setup,
    Update,
)
from fedft.wire.v1 import messages_pb2 as pb
from fedft.wire.v1 import tensors_pb2 as tensors

FEATURES: frozenset[str] = frozenset()
"""Features that this build understands when a message requires them."""

_BYTES = 2  # protobuf's wire type of a sub-message
_REPLIES: dict[int, type[Reply]] = {
    pb.Reply.UPDATE_FIELD_NUMBER: Update,
    pb.Reply.EVALUATION_FIELD_NUMBER: Evaluation,
    pb.Reply.HELLO_FIELD_NUMBER: Hello,
    pb.Reply.REFUSAL_FIELD_NUMBER: Refusal,
    pb.Reply.NEED_SETUP_FIELD_NUMBER: NeedSetup,
    pb.Reply.SECAGG_FIELD_NUMBER: SecaggAnswer,
}

_CODED = (InstructionKind.TRAIN, InstructionKind.SKETCH)
"""Instructions that are answered with coded tensors: they name a codec, or nothing could be answered."""

MAX_NAME = 256
MAX_OPTIONS = 4096
MAX_TEXT = 4096
MAX_METRICS = 64
MAX_CODECS = 32
MAX_SEED = 64
MAX_SECAGG = 1 << 20
"""Bytes of a step of secure aggregation, masked vectors apart."""
MAX_INTRODUCTION = 96
MAX_COUNT = 1 << 40
"""Of samples, steps and updates: the sum over a million clients still fits 63 bits."""
MAX_METRIC = 1e100
"""Magnitude of a metric: a sum over clients, each weighted with ``MAX_COUNT``, stays finite."""
MAX_SECONDS = 31 * 86_400.0


def decode_instruction(payload: bytes) -> Instruction:
    """Parse an instruction.

    Raises:
        FedftError: FEDFT-4002 and 4009 on form, 4007 on a field, 4008 on a required feature, 4010 and 4011
            on a codec.

    """
    message = pb.Instruction()
    _parse(payload, message)
    _require_features(message.required_features)
    _expect(len(message.codec_seed) <= MAX_SEED, "codec_seed", len(message.codec_seed))
    _expect(len(message.accepted_codecs) <= MAX_CODECS, "accepted_codecs", len(message.accepted_codecs))
    kind = KINDS.word(message.kind)
    _expect(bool(message.accepted_codecs) or kind not in _CODED, "accepted_codecs", 0)
    deadline = message.deadline_seconds
    _expect(0 < deadline <= MAX_SECONDS, "deadline_seconds", deadline)
    max_norm = message.max_update_norm
    _expect(math.isfinite(max_norm) and max_norm >= 0, "max_update_norm", max_norm)
    _expect(len(message.secagg) <= MAX_SECAGG, "secagg", len(message.secagg))
    setup = message.setup
    return Instruction(
        round=_round(message),
        kind=kind,
        model=_model(message),
        setup_digest=_digest(message.setup_digest, "setup_digest"),
        setup=Setup(setup.config_json, setup.frame) if message.HasField("setup") else None,
        global_state=_shards(message.global_state),
        delta_base_digest=_digest(message.delta_base_digest, "delta_base_digest"),
        accepted_codecs=tuple(_spec(spec) for spec in message.accepted_codecs),
        codec_seed=message.codec_seed,
        deadline_seconds=deadline,
        acknowledgements=tuple(
            Acknowledgement(ack.round, _count(ack.update_seq, "update_seq"), ack.accepted)
            for ack in message.acknowledgements
        ),
        required_features=tuple(message.required_features),
        max_update_norm=max_norm,
        secagg=message.secagg,
    )


def reply_kind(payload: bytes) -> type[Reply] | None:
    """Return what a serialised reply claims to be, from its first byte; None for no kind known here.

    It costs nothing and promises nothing: ``decode_reply`` checks the rest.
    """
    return _REPLIES.get(payload[0] >> 3) if payload and payload[0] & 7 == _BYTES else None


def decode_reply(payload: bytes) -> Reply:
    """Parse a reply; raises as ``decode_instruction`` does."""
    message = pb.Reply()
    _parse(payload, message)
    match message.WhichOneof("kind"):
        case "update":
            return _update(message.update)
        case "evaluation":
            return _evaluation(message.evaluation)
        case "hello":
            return _hello(message.hello)
        case "refusal":
            refusal = message.refusal
            text = _text(refusal.message, "message", MAX_TEXT)
            client = _text(refusal.client_id, "client_id", MAX_NAME)
            return Refusal(_round(refusal), _code(refusal.code), text, client)
        case "need_setup":
            need = message.need_setup
            return NeedSetup(_round(need), _digest(need.setup_digest, "setup_digest"))
        case "secagg":
            return _secagg(message.secagg)
    raise FedftError(Code.FIELD_OUT_OF_BOUNDS, "a reply of no kind that this build knows")


def _update(update: pb.Update) -> Update:
    _require_features(update.required_features)
    return Update(
        round=_round(update),
        model=_model(update),
        client_id=_text(update.client_id, "client_id", MAX_NAME),
        update_seq=_count(update.update_seq, "update_seq"),
        num_examples=_count(update.num_examples, "num_examples"),
        shards=_shards(update.shards),
        metrics=_metrics(update.metrics),
        privacy=_privacy(update.privacy) if update.HasField("privacy") else None,
        required_features=tuple(update.required_features),
        masked=update.masked,
    )


def _secagg(answer: pb.SecaggAnswer) -> SecaggAnswer:
    _expect(len(answer.message) <= MAX_SECAGG, "message", len(answer.message))
    return SecaggAnswer(_round(answer), _text(answer.client_id, "client_id", MAX_NAME), answer.message)


def _evaluation(evaluation: pb.Evaluation) -> Evaluation:
    return Evaluation(
        round=_round(evaluation),
        model=_model(evaluation),
        client_id=_text(evaluation.client_id, "client_id", MAX_NAME),
        num_examples=_count(evaluation.num_examples, "num_examples"),
        metrics=_metrics(evaluation.metrics),
    )


def _hello(hello: pb.Hello) -> Hello:
    _expect(len(hello.codecs) <= MAX_CODECS, "codecs", len(hello.codecs))
    _expect(len(hello.features) <= MAX_CODECS, "features", len(hello.features))
    _expect(len(hello.introduction) <= MAX_INTRODUCTION, "introduction", len(hello.introduction))
    return Hello(
        client_id=_text(hello.client_id, "client_id", MAX_NAME),
        base_digest=_digest(hello.base_digest, "base_digest"),
        num_examples=_count(hello.num_examples, "num_examples"),
        wire_version=hello.wire_version,
        codecs={codec.id: codec.version for codec in hello.codecs},
        features=tuple(_text(feature, "features", MAX_NAME) for feature in hello.features),
        introduction=hello.introduction,
    )


def _privacy(message: pb.PrivacyStatement) -> PrivacyStatement:
    names = ("noise_multiplier", "max_norm", "sample_rate", "epsilon", "delta")
    for name in names:
        value = getattr(message, name)
        # An infinite epsilon is an honest statement; anything else must be a finite number.
        _expect(value >= 0 and (math.isfinite(value) or name == "epsilon"), name, value)
    return PrivacyStatement(
        mechanism=MECHANISMS.word(message.mechanism),
        unit=UNITS.word(message.unit),
        noise_multiplier=message.noise_multiplier,
        max_norm=message.max_norm,
        sample_rate=message.sample_rate,
        steps=_count(message.steps, "steps"),
        epsilon=message.epsilon,
        delta=message.delta,
        accountant=_text(message.accountant, "accountant", MAX_NAME),
        ledger=witness_of(message.ledger_sequence, message.ledger_digest),
    )


def witness_of(sequence: int, digest: bytes) -> LedgerWitness | None:
    """Return what is told of a ledger, None for nothing; FEDFT-4007 where it is out of bounds."""
    told = _digest(digest, "ledger_digest")
    return LedgerWitness(_count(sequence, "ledger_sequence"), told) if told else None


def _parse(payload: bytes, message: Message) -> None:
    check_fields(payload, message)
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise FedftError(Code.MESSAGE_MALFORMED, f"not a {message.DESCRIPTOR.name}: {error}") from None


def _round(
    message: pb.Update | pb.Evaluation | pb.Refusal | pb.NeedSetup | pb.SecaggAnswer | pb.Instruction,
) -> RoundRef:
    _expect(message.HasField("round"), "round", None)
    return RoundRef(_text(message.round.run_id, "run_id", MAX_NAME), message.round.round)


def _model(message: pb.Update | pb.Evaluation | pb.Instruction) -> ModelRef:
    _expect(message.HasField("model"), "model", None)
    names = ("base_digest", "frame_digest", "manifest_digest", "global_state_digest")
    return ModelRef(*(_digest(getattr(message.model, name), name) for name in names))


def _digest(digest: bytes, field: str) -> str:
    _expect(len(digest) in (0, 32), field, digest[:40])
    return digest.hex()


def _text(text: str, field: str, limit: int) -> str:
    _expect(len(text) <= limit, field, text[:40])
    return text


def _code(text: str) -> Code:
    try:
        return Code(text)
    except ValueError:
        raise FedftError(Code.FIELD_OUT_OF_BOUNDS, f"code is {text[:40]!r}") from None


def _count(value: int, field: str) -> int:
    _expect(value <= MAX_COUNT, field, value)
    return value


def _metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    _expect(len(metrics) <= MAX_METRICS, "metrics", len(metrics))
    for name, value in metrics.items():
        _text(name, "metrics", MAX_NAME)
        _expect(abs(value) <= MAX_METRIC, f"metric {name[:40]}", value)
    return dict(sorted(metrics.items()))


def _shards(shards: Iterable[tensors.Shard]) -> tuple[Shard, ...]:
    return tuple(
        Shard(shard.first_tensor, shard.tensor_count, _spec(shard.codec), shard.blob, shard.scales_f32le)
        for shard in shards
    )


def _spec(spec: tensors.CodecSpec) -> CodecSpec:
    return CodecSpec(spec.id, spec.version, _params(spec))


def _params(spec: tensors.CodecSpec) -> Params:
    match spec.WhichOneof("params"):
        case "dense":
            return DenseParams(DENSE_TYPES.word(spec.dense.type))
        case "ternary":
            rule = RULES.word(spec.ternary.rule)
            return TernaryParams(spec.ternary.density_ppm, rule, spec.ternary.alpha)
        case "rotated":
            return RotatedParams(spec.rotated.bits)
        case "block_int":
            return BlockIntParams(spec.block_int.bits, spec.block_int.block)
        case "named":
            name = _text(spec.named.name, "codec name", MAX_NAME)
            return NamedParams(name, _text(spec.named.options, "codec options", MAX_OPTIONS))
    raise FedftError(Code.CODEC_UNSUPPORTED, f"codec {spec.id} version {spec.version} is unknown here")


def _require_features(features: Iterable[str]) -> None:
    unknown = sorted(feature for feature in set(features) if feature not in FEATURES)
    if unknown:
        raise FedftError(
            Code.FEATURE_UNSUPPORTED,
            f"the message requires {', '.join(name[:64] for name in unknown[:5])}, unknown to this build",
            hint="update fedft on this side",
        )


def _expect(good: bool, field: str, value: object) -> None:
    if not good:
        raise FedftError(Code.FIELD_OUT_OF_BOUNDS, f"field {field} is not allowed to be {value!r}")
