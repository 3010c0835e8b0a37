"""From plain values to bytes."""

from __future__ import annotations

from collections.abc import Iterable

from fedft.codecs.spec import (
    BlockIntParams,
    CodecSpec,
    DenseParams,
    NamedParams,
    RotatedParams,
    Shard,
    TernaryParams,
)
from fedft.errors import Code, FedftError
from fedft.statements import PrivacyStatement
from fedft.wire.enums import DENSE_TYPES, KINDS, MECHANISMS, RULES, UNITS
from fedft.wire.messages import (
    Evaluation,
    Hello,
    Instruction,
    ModelRef,
    NeedSetup,
    Refusal,
    Reply,
    RoundRef,
    SecaggAnswer,
    Update,
)
from fedft.wire.v1 import messages_pb2 as pb
from fedft.wire.v1 import tensors_pb2 as tensors


def encode_instruction(instruction: Instruction) -> bytes:
    """Serialise an instruction; raises FEDFT-4007 when a digest is not one."""
    message = pb.Instruction(
        round=_round(instruction.round),
        kind=KINDS.number(instruction.kind),
        model=_model(instruction.model),
        setup_digest=_digest(instruction.setup_digest),
        global_state=_shards(instruction.global_state),
        delta_base_digest=_digest(instruction.delta_base_digest),
        accepted_codecs=[_spec(spec) for spec in instruction.accepted_codecs],
        codec_seed=instruction.codec_seed,
        deadline_seconds=instruction.deadline_seconds,
        acknowledgements=[
            pb.Acknowledgement(round=ack.round, update_seq=ack.update_seq, accepted=ack.accepted)
            for ack in instruction.acknowledgements
        ],
        required_features=instruction.required_features,
        max_update_norm=instruction.max_update_norm,
        secagg=instruction.secagg,
    )
    if instruction.setup is not None:
        message.setup.config_json = instruction.setup.config_json
        message.setup.frame = instruction.setup.frame
        message.setup.SetInParent()
    return bytes(message.SerializeToString(deterministic=True))


def encode_reply(reply: Reply) -> bytes:
    """Serialise a reply; raises FEDFT-4007 when a digest is not one."""
    match reply:
        case Update():
            message = pb.Reply(update=_update(reply))
        case Evaluation():
            message = pb.Reply(evaluation=_evaluation(reply))
        case Hello():
            message = pb.Reply(hello=_hello(reply))
        case Refusal():
            refusal = pb.Refusal(
                round=_round(reply.round), code=reply.code, message=reply.message, client_id=reply.client_id
            )
            message = pb.Reply(refusal=refusal)
        case NeedSetup():
            need = pb.NeedSetup(round=_round(reply.round), setup_digest=_digest(reply.setup_digest))
            message = pb.Reply(need_setup=need)
        case SecaggAnswer():
            answer = pb.SecaggAnswer(
                round=_round(reply.round), client_id=reply.client_id, message=reply.message
            )
            message = pb.Reply(secagg=answer)
    return bytes(message.SerializeToString(deterministic=True))


def _update(update: Update) -> pb.Update:
    return pb.Update(
        round=_round(update.round),
        model=_model(update.model),
        client_id=update.client_id,
        update_seq=update.update_seq,
        num_examples=update.num_examples,
        shards=_shards(update.shards),
        metrics=dict(update.metrics),
        privacy=None if update.privacy is None else _privacy(update.privacy),
        required_features=update.required_features,
        masked=update.masked,
    )


def _evaluation(evaluation: Evaluation) -> pb.Evaluation:
    return pb.Evaluation(
        round=_round(evaluation.round),
        model=_model(evaluation.model),
        client_id=evaluation.client_id,
        num_examples=evaluation.num_examples,
        metrics=dict(evaluation.metrics),
    )


def _hello(hello: Hello) -> pb.Hello:
    return pb.Hello(
        client_id=hello.client_id,
        base_digest=_digest(hello.base_digest),
        num_examples=hello.num_examples,
        wire_version=hello.wire_version,
        codecs=[_codec_version(id, version) for id, version in sorted(hello.codecs.items())],
        features=hello.features,
        introduction=hello.introduction,
    )


def _codec_version(codec_id: int, version: int) -> pb.CodecVersion:
    message = pb.CodecVersion(version=version)
    message.id = codec_id  # type: ignore[assignment]
    return message


def _privacy(statement: PrivacyStatement) -> pb.PrivacyStatement:
    return pb.PrivacyStatement(
        mechanism=MECHANISMS.number(statement.mechanism),
        unit=UNITS.number(statement.unit),
        noise_multiplier=statement.noise_multiplier,
        max_norm=statement.max_norm,
        sample_rate=statement.sample_rate,
        steps=statement.steps,
        epsilon=statement.epsilon,
        delta=statement.delta,
        accountant=statement.accountant,
        ledger_sequence=statement.ledger.sequence if statement.ledger else 0,
        ledger_digest=_digest(statement.ledger.digest) if statement.ledger else b"",
    )


def _round(ref: RoundRef) -> pb.RoundRef:
    return pb.RoundRef(run_id=ref.run_id, round=ref.round)


def _model(ref: ModelRef) -> pb.ModelRef:
    return pb.ModelRef(
        base_digest=_digest(ref.base_digest),
        frame_digest=_digest(ref.frame_digest),
        manifest_digest=_digest(ref.manifest_digest),
        global_state_digest=_digest(ref.global_state_digest),
    )


def _digest(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b"?"
    if len(digest) not in (0, 32):
        raise FedftError(Code.FIELD_OUT_OF_BOUNDS, f"{text!r} is not a SHA-256 digest in hex")
    return digest


def _shards(shards: Iterable[Shard]) -> list[tensors.Shard]:
    return [
        tensors.Shard(
            first_tensor=shard.first_tensor,
            tensor_count=shard.tensor_count,
            codec=_spec(shard.codec),
            blob=shard.blob,
            scales_f32le=shard.scales,
        )
        for shard in shards
    ]


def _spec(spec: CodecSpec) -> tensors.CodecSpec:
    message = tensors.CodecSpec(version=spec.version)
    message.id = spec.codec_id  # type: ignore[assignment]
    match spec.params:
        case DenseParams(dtype):
            message.dense.type = DENSE_TYPES.number(dtype)
        case TernaryParams(density_ppm, rule, alpha):
            message.ternary.density_ppm = density_ppm
            message.ternary.rule = RULES.number(rule)
            message.ternary.alpha = alpha
        case RotatedParams(bits):
            message.rotated.bits = bits
        case BlockIntParams(bits, block):
            message.block_int.bits = bits
            message.block_int.block = block
        case NamedParams(name, options):
            message.named.name = name
            message.named.options = options
    return message
