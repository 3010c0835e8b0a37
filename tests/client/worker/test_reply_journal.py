from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fedft.client.worker.reply_journal import ReplyJournal
from fedft.codecs.spec import CodecSpec, DenseParams, Shard
from fedft.wire import Acknowledgement, Instruction, InstructionKind, ModelRef, RoundRef, Setup

DIGEST = "ab" * 32
SHARD = Shard(0, 1, CodecSpec(1, 1, DenseParams("float32")), b"1234", b"")


def instruction(number: int = 1, run: str = "run", state: str = DIGEST) -> Instruction:
    model = ModelRef(DIGEST, DIGEST, DIGEST, state)
    return Instruction(
        RoundRef(run, number),
        InstructionKind.TRAIN,
        model,
        DIGEST,
        global_state=(SHARD,),
        accepted_codecs=(SHARD.codec,),
        codec_seed=b"s",
    )


def test_a_reply_is_found_again_after_a_restart(tmp_path: Path) -> None:
    ReplyJournal(tmp_path / "journal").keep(instruction(), b"reply")
    assert ReplyJournal(tmp_path / "journal").find(instruction()) == b"reply"


def test_how_an_instruction_is_packed_makes_no_difference(tmp_path: Path) -> None:
    journal = ReplyJournal(tmp_path / "journal")
    journal.keep(instruction(), b"reply")
    packed = replace(
        instruction(),
        setup=Setup("{}"),
        global_state=(),
        delta_base_digest="cd" * 32,
        deadline_seconds=5.0,
        acknowledgements=(Acknowledgement(0, 0, True),),
    )
    assert journal.find(packed) == b"reply"


def test_another_instruction_is_not_answered_from_it(tmp_path: Path) -> None:
    journal = ReplyJournal(tmp_path / "journal")
    journal.keep(instruction(), b"reply")
    others = [
        instruction(2),
        instruction(run="other"),
        instruction(state="cd" * 32),
        replace(instruction(), kind=InstructionKind.EVALUATE),
        replace(instruction(), codec_seed=b"t"),
    ]
    assert [journal.find(other) for other in others] == [None] * len(others)


def test_only_the_last_rounds_of_the_last_runs_are_kept(tmp_path: Path) -> None:
    journal = ReplyJournal(tmp_path / "journal")
    for run in "abcdef":
        for number in range(1, 8):
            journal.keep(instruction(number, run), f"{run}{number}".encode())
    kept = {(r, n) for r in "abcdef" for n in range(1, 8) if journal.find(instruction(n, r))}
    assert kept == {(r, n) for r in "cdef" for n in range(4, 8)}
