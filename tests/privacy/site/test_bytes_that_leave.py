"""Everything that leaves a client in a private run, byte for byte, on data that could not differ more."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedft.client.app import app
from fedft.client.worker.answer import process_worker
from fedft.privacy.site.disclosure import PUBLIC
from fedft.transport.flower_records import unpack
from fedft.wire import Hello, ModelRef, Reply, RoundRef, Update, decode_reply, encode_reply, open_envelope
from tests.federation import run_inline, tiny_config

PRIVATE = {
    "privacy.mechanism": "example",
    "privacy.epsilon": 5.0,
    "privacy.delta": 1e-3,
    "rounds.weighting": "uniform",
    "rounds.total": 2,
    "task.max_length": 24,
}
NOISED = {"codec_error"}


def replies_of_a_run(folder: Path, monkeypatch: pytest.MonkeyPatch, *, other_data: bool) -> list[bytes]:
    """Return the payload of every reply, in order."""
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    process_worker.cache_clear()
    config = tiny_config(folder, **PRIVATE)
    if other_data:  # as many records, of which two thirds are too long and are dropped, and the rest alike
        rows = [
            {"prompt": "9+9=" if i % 3 else "1+2+3+4+5+6+7+8+9+1+2+3+4=", "completion": " 7" * (1 + i % 3)}
            for i in range(90)
        ]
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    payloads: list[bytes] = []

    def client(message: Any, context: Any) -> Any:
        reply = app(message, context)
        payloads.append(open_envelope(unpack(reply.content), max_bytes=1 << 30))
        return reply

    run_inline(config, client_app=client)
    return payloads


def without_noised_values(reply: Reply) -> Reply:
    """Leave out the update itself and what is computed from it, the names of the run, the ledger's digest.

    The digest covers a random number of the ledger's own.
    """
    if not isinstance(reply, Update):
        return reply
    metrics = {name: value for name, value in reply.metrics.items() if name not in NOISED}
    names = RoundRef("run", reply.round.round), ModelRef("", "", "", "")
    assert reply.privacy is not None
    assert reply.privacy.ledger is not None
    stated = replace(reply.privacy, ledger=replace(reply.privacy.ledger, digest=""))
    return replace(reply, round=names[0], model=names[1], shards=(), metrics=metrics, privacy=stated)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[bytes], list[bytes]]:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    return (
        replies_of_a_run(tmp_path / "one", monkeypatch, other_data=False),
        replies_of_a_run(tmp_path / "other", monkeypatch, other_data=True),
    )


def test_only_the_noised_update_depends_on_the_data(runs: tuple[list[bytes], list[bytes]]) -> None:
    one, other = ([decode_reply(payload) for payload in payloads] for payloads in runs)

    # No byte is left that the decoded messages do not account for.
    for payloads, replies in zip(runs, (one, other), strict=True):
        assert [encode_reply(reply) for reply in replies] == payloads
    assert [type(reply) for reply in one] == [Hello] * 3 + [Update] * 6
    stripped = [[encode_reply(without_noised_values(reply)) for reply in replies] for replies in (one, other)]
    assert stripped[0] == stripped[1]
    for reply in one:
        assert isinstance(reply, Hello | Update)
        assert reply.num_examples == 0
        if isinstance(reply, Update):
            assert set(reply.metrics) == {"steps", "codec_error"} <= PUBLIC
