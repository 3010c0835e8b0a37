"""What a client refuses: the server sends something else than it says, or asks for what is not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fedft.client.site.folders import checked_name
from fedft.client.site.identity import ClientIdentity
from fedft.client.worker.setup_cache import SetupCache
from fedft.errors import FedftError
from fedft.wire import Instruction, InstructionKind, Refusal, RoundRef, Setup
from fedft.wire.setups import parse_setup, setup_bytes, setup_digest
from tests.client.site.test_enforcement import Hub

OTHER = "ab" * 32
NOT_PRIVATE = {"privacy.mechanism": "none"}
ERROR_FEEDBACK = {"codec.name": "ternary", "codec.error_feedback": True}


def _other_model(instruction: Instruction, **digests: str) -> Instruction:
    return replace(instruction, model=replace(instruction.model, **digests))


WRONG: dict[str, Callable[[Instruction], Instruction]] = {
    "FEDFT-2010": lambda asked: _other_model(asked, base_digest=OTHER),
    "FEDFT-3040": lambda asked: replace(asked, kind=InstructionKind.EVALUATE),
    "FEDFT-7021": lambda asked: replace(asked, setup_digest=OTHER),
    "FEDFT-7022": lambda asked: _other_model(asked, global_state_digest=OTHER),
    "FEDFT-7023": lambda asked: replace(asked, round=RoundRef("../../run", 1)),
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    folder = tmp_path_factory.mktemp("hub")
    return Hub(folder, **NOT_PRIVATE, **ERROR_FEEDBACK)


@pytest.mark.parametrize("code", WRONG)
def test_an_instruction_that_is_wrong_is_refused(
    hub: Hub, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    reply = hub.ask(WRONG[code](hub.train()), ClientIdentity(0, 3))

    assert isinstance(reply, Refusal)
    assert reply.code == code, reply.message
    assert not (tmp_path.parent / "run").exists()


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../run", "a\0b"])
def test_a_name_that_leaves_its_folder_names_no_file(name: str) -> None:
    with pytest.raises(FedftError, match="FEDFT-7023"):
        checked_name(name)


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 7, (9).to_bytes(8, "little") + b"short", (1).to_bytes(8, "little") + b"\xff"]
)
def test_bytes_that_are_no_setup(data: bytes) -> None:
    with pytest.raises(FedftError, match="FEDFT-7020"):
        parse_setup(data)


def test_a_damaged_file_of_the_cache_counts_as_absent(tmp_path: Path) -> None:
    cache, setup = SetupCache(tmp_path), Setup("{}", b"frame")
    digest = setup_digest(setup)
    cache.keep(digest, setup)
    path = tmp_path / "setups" / digest
    for damaged in (setup_bytes(setup)[:5], setup_bytes(setup) + b"x"):
        path.write_bytes(damaged)
        assert cache.find(digest) is None
        assert not path.exists()


@pytest.mark.parametrize(
    "node",
    [
        {},
        {"partition-id": 0},
        {"partition-id": "0", "num-partitions": 2},
        {"partition-id": 2, "num-partitions": 2},
        {"partition-id": -1, "num-partitions": 2},
    ],
)
def test_a_node_that_does_not_say_which_partition_it_is(node: Mapping[str, object]) -> None:
    with pytest.raises(FedftError, match="FEDFT-7003"):
        ClientIdentity.of(node)
