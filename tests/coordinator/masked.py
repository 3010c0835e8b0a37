"""Masked runs over the inline carrier: what the clients mask, and clients that are killed in a step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from numpy.typing import NDArray

from fedft.client.app import app as honest_app
from fedft.client.worker.answer import process_worker
from fedft.client.worker.masking import Mask
from fedft.codecs import Manifest, state_digest
from fedft.config import RunConfig
from fedft.coordinator.server_update import ServerUpdate
from fedft.registries import METHODS
from fedft.secagg.sized_grid import SizedGrid
from fedft.store import RunRecord, RunStore
from fedft.transport.flower_records import unpack
from fedft.wire import Instruction, InstructionKind, decode_instruction, open_envelope
from tests.federation import tiny_config

MASKED = {"secagg.mode": "required", "codec.name": "dense", "data.partition.clients": 4}
App = Callable[[Message, Context], Message]
Plain = Mapping[int, Mapping[str, tuple[SizedGrid, NDArray[np.int64]]]]


def masked_config(folder: Path, **overrides: Any) -> RunConfig:
    return tiny_config(folder, **MASKED | {"rounds.max_weight": 32} | overrides)


def client_of(context: Context) -> str:
    partition = context.node_config["partition-id"]
    assert isinstance(partition, int)
    return f"client-{partition:03d}"


def instruction_of(message: Message) -> Instruction:
    return decode_instruction(open_envelope(unpack(message.content), max_bytes=2**24))


def restarted(message: Message, context: Context) -> Message:
    """A client whose process is a new one at every message."""
    process_worker.cache_clear()
    return honest_app(message, context)


def killed(*steps: tuple[str, InstructionKind, int]) -> App:
    """Clients whose process dies when it is asked for a step in a round: (client, step, round)."""

    def app(message: Message, context: Context) -> Message:
        instruction = instruction_of(message)
        if (client_of(context), instruction.kind, instruction.round.round) in steps:
            process_worker.cache_clear()
            raise RuntimeError("killed")
        return honest_app(message, context)

    return app


@contextmanager
def plain_digits(patch: pytest.MonkeyPatch) -> Iterator[Plain]:
    """Note what every client masks: by round and client, the grid and the digits."""
    seen: dict[int, dict[str, tuple[SizedGrid, NDArray[np.int64]]]] = defaultdict(dict)
    make = Mask._digits

    def noted(self: Mask, change: Any, context: Any) -> NDArray[np.int64]:
        digits = make(self, change, context)
        number = context.instruction.round.round
        assert context.identity.client not in seen[number], "masked twice"
        seen[number][context.identity.client] = (self._mask.grid, digits)
        return digits

    with patch.context() as patched:
        patched.setattr(Mask, "_digits", noted)
        yield seen


def assert_plain_sums(store: RunStore, run: RunRecord, config: RunConfig, plain: Plain) -> None:
    """Every round's state has the bits that the same integers give, added up without masks."""
    state = store.state(run.id, 0)
    apply = ServerUpdate(METHODS.get(config.method), None, Manifest.of(state))
    for record in store.rounds(run.id)[1:]:
        assert record.secagg is not None
        if not record.secagg.lost:
            survivors = [update.client for update in record.updates if update.status == "accepted"]
            grid = plain[record.round][survivors[0]][0]
            total = np.sum([plain[record.round][client][1] for client in survivors], axis=0)
            state = apply.apply(state, grid.mean(total, len(survivors)).arrays, None, b"").state
        assert record.state_digest == state_digest(state)
