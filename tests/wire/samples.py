"""One example of every message, with every field set to something that is not its default."""

from __future__ import annotations

from dataclasses import replace

from fedft.codecs.spec import (
    BlockIntParams,
    CodecSpec,
    DenseParams,
    RotatedParams,
    Shard,
    TernaryParams,
)
from fedft.statements import LedgerWitness, PrivacyMechanism, PrivacyStatement, PrivacyUnit
from fedft.wire import (
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

ROUND = RoundRef("run-7", 12)
MODEL = ModelRef("aa" * 32, "bb" * 32, "cc" * 32, "dd" * 32)
SPECS = (
    CodecSpec(1, 1, DenseParams("float32")),
    CodecSpec(1, 1, DenseParams("bfloat16")),
    CodecSpec(2, 1, TernaryParams(100_000, "least_squares")),
    CodecSpec(2, 1, TernaryParams(50_000, "compeft", 2.5)),
    CodecSpec(3, 1, RotatedParams(1)),
    CodecSpec(4, 1, BlockIntParams(4, 512)),
)
SHARDS = tuple(
    Shard(i, 1, spec, bytes([i] * (4 + i)), bytes(4) if i > 1 else b"") for i, spec in enumerate(SPECS)
)
PRIVACY = PrivacyStatement(
    PrivacyMechanism.DP_SGD, PrivacyUnit.EXAMPLE, 1.1, 0.5, 0.01, 40, 2.75, 1e-5, "pld 0.6.0"
)
UPDATE = Update(ROUND, MODEL, "client-a", 5, 800, SHARDS, {"loss": 0.25, "accuracy": 0.75}, PRIVACY, ())
REFUSAL = Refusal(ROUND, "FEDFT-8001", "the budget of this site is spent")
REPLIES: dict[str, Reply] = {
    "update": UPDATE,
    "update_charged": replace(UPDATE, privacy=replace(PRIVACY, ledger=LedgerWitness(17, "ab" * 32))),
    "update_minimal": Update(ROUND, MODEL, "client-a", 0, 0, ()),
    "evaluation": Evaluation(ROUND, MODEL, "client-a", 800, {"loss": 0.25}),
    "hello": Hello("client-a", "aa" * 32, 800, 1, {1: 1, 2: 1}, ("masked-sum",)),
    "refusal": REFUSAL,
    "refusal_named": Refusal(ROUND, "FEDFT-8303", "epsilon 8 is asked, 2 is allowed", "client-a"),
    "need_setup": NeedSetup(ROUND, "ee" * 32),
    "update_masked": Update(ROUND, MODEL, "client-a", 5, 0, (), masked=b"words"),
    "hello_masked": Hello("client-a", "aa" * 32, 0, 1, {1: 1}, introduction=bytes(range(96))),
    "secagg": SecaggAnswer(ROUND, "client-a", b"shares"),
    "secagg_empty": SecaggAnswer(ROUND, "client-a", b""),
}
INSTRUCTIONS: dict[str, Instruction] = {
    "instruction_hello": Instruction(
        RoundRef("run-7", 0), InstructionKind.HELLO, ModelRef("", "", "", ""), "", deadline_seconds=30.0
    ),
    "instruction_train": Instruction(
        ROUND,
        InstructionKind.TRAIN,
        MODEL,
        "ee" * 32,
        Setup('{"seed": 1}', b"frame"),
        SHARDS[:2],
        "ff" * 32,
        SPECS,
        b"seed-of-the-round",
        120.0,
        (Acknowledgement(11, 4, True), Acknowledgement(10, 3, False)),
    ),
    "instruction_sketch": Instruction(
        RoundRef("run-7", 0),
        InstructionKind.SKETCH,
        ModelRef("aa" * 32, "", "cc" * 32, ""),
        "ee" * 32,
        accepted_codecs=SPECS[:1],
        deadline_seconds=60.0,
    ),
    "instruction_train_masked": Instruction(
        ROUND, InstructionKind.TRAIN, MODEL, "ee" * 32, accepted_codecs=SPECS[:1], secagg=b"round"
    ),
    **{
        f"instruction_{kind}": Instruction(ROUND, kind, MODEL, "ee" * 32, secagg=b"message")
        for kind in (
            InstructionKind.ADVERTISE,
            InstructionKind.SHARE,
            InstructionKind.RECEIVE,
            InstructionKind.ATTEST,
            InstructionKind.UNMASK,
        )
    },
    "instruction_evaluate": Instruction(
        ROUND, InstructionKind.EVALUATE, MODEL, "ee" * 32, Setup("{}"), SHARDS[:1], deadline_seconds=60.0
    ),
}
