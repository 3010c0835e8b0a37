"""Which handler answers an instruction, and what becomes of one that nothing answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fedft.client.site.identity import ClientIdentity
from fedft.client.worker.context import InstructionContext
from fedft.client.worker.handlers import new_handlers
from fedft.client.worker.residual_store import ResidualStore
from fedft.client.worker.worker import Worker
from fedft.config.load import to_json
from fedft.wire import (
    Evaluation,
    Instruction,
    InstructionKind,
    ModelRef,
    Refusal,
    Reply,
    RoundRef,
    Setup,
    decode_reply,
    encode_instruction,
    open_envelope,
    seal,
)
from fedft.wire.setups import setup_digest
from tests.federation import tiny_config

ROUND = RoundRef("run-1", 1)


@dataclass
class Counting:
    """Remembers what it was asked."""

    seen: list[InstructionContext] = field(default_factory=list)

    def answer(self, context: InstructionContext) -> Evaluation:
        self.seen.append(context)
        return Evaluation(ROUND, context.instruction.model, context.identity.client, len(self.seen), {})


@pytest.fixture
def instruction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instruction:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    setup = Setup(to_json(tiny_config(tmp_path)))
    model = ModelRef("", "", "", "")
    return Instruction(ROUND, InstructionKind.EVALUATE, model, setup_digest(setup), setup)


def ask(worker: Worker, instruction: Instruction) -> Reply:
    envelope = worker.handle(seal(encode_instruction(instruction)), ClientIdentity(1, 3))
    return decode_reply(open_envelope(envelope, max_bytes=1 << 20))


def test_a_worker_keeps_its_handlers_from_one_instruction_to_the_next(instruction: Instruction) -> None:
    handler = Counting()
    worker = Worker(handlers={InstructionKind.EVALUATE: handler})

    replies = [ask(worker, instruction) for _ in range(2)]
    assert [reply.num_examples for reply in replies if isinstance(reply, Evaluation)] == [1, 2]
    assert {context.identity.client for context in handler.seen} == {"client-001"}
    assert handler.seen[0].runtime is handler.seen[1].runtime


def test_a_kind_without_a_handler_is_refused_before_any_work(instruction: Instruction) -> None:
    worker = Worker(handlers={InstructionKind.TRAIN: Counting()})

    reply = ask(worker, instruction)
    assert isinstance(reply, Refusal)
    assert reply.code == "FEDFT-7012"
    assert worker._runtime is None


def test_every_kind_of_instruction_has_a_handler(tmp_path: Path) -> None:
    assert set(new_handlers(ResidualStore(tmp_path))) == set(InstructionKind)
