from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Context, Message

from fedft.client.app import app as honest_app
from fedft.client.site.folders import ClientFolders
from fedft.client.worker.answer import process_worker
from fedft.codecs import CodecContext, Manifest, decode, make_codec, state_digest
from fedft.config import RunConfig
from fedft.errors import FedftError
from fedft.store import RunStore
from fedft.transport.flower_records import pack, unpack
from fedft.wire import ModelRef, RoundRef, Update, decode_reply, encode_reply, open_envelope, seal
from tests.federation import run_inline, tiny_config


def test_a_run_commits_every_round_and_ends_with_the_digest_of_its_last_state(tmp_path: Path) -> None:
    store, run = run_inline(tiny_config(tmp_path))

    rounds = store.rounds(run.id)
    assert run.status == "completed"
    assert [record.round for record in rounds] == [0, 1, 2, 3]
    assert run.final_digest == rounds[-1].state_digest == state_digest(store.state(run.id, 3))
    assert len({record.state_digest for record in rounds}) == 4


def test_the_same_configuration_gives_the_same_digest_and_another_seed_does_not(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    digests = [run_inline(config)[1].final_digest for _ in range(2)]
    other = run_inline(tiny_config(tmp_path, seed=18))[1].final_digest

    assert digests[0] == digests[1] != other


def test_global_random_state_has_no_effect_and_is_left_alone(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    first = run_inline(config)[1].final_digest
    torch.manual_seed(99)
    np.random.seed(99)
    before = torch.get_rng_state().clone()

    assert run_inline(config)[1].final_digest == first
    assert torch.equal(torch.get_rng_state(), before)


def test_later_rounds_load_no_model_and_are_sent_no_setup(tmp_path: Path) -> None:
    store, run = run_inline(tiny_config(tmp_path))

    rounds = store.rounds(run.id)
    later = [update for record in rounds[2:] for update in record.updates]
    assert len(later) == 6
    assert all(update.metrics["model_loads"] == 0 for update in later)
    assert all(update.bytes_setup == 0 for update in later)
    assert all(update.bytes_setup > 0 for update in rounds[1].updates)
    assert all(update.bytes_up > 0 and update.bytes_down > 0 for update in later)


def test_a_reproducible_frame_is_not_shipped(tmp_path: Path) -> None:
    shipped = run_inline(tiny_config(tmp_path))
    computed = run_inline(tiny_config(tmp_path, **{"adapter.initialiser": "random"}))

    frame = shipped[0].frame_path(shipped[1].frame_digest).stat().st_size
    sent = [sum(u.bytes_setup for u in store.rounds(run.id)[1].updates) for store, run in (shipped, computed)]
    assert sent[0] - sent[1] > 3 * 0.9 * frame


def test_every_initialiser_trains(tmp_path: Path) -> None:
    for name in ("lora-xs", "pissa", "random"):
        store, run = run_inline(tiny_config(tmp_path, **{"adapter.initialiser": name}))
        losses = [r.evaluations[0].metrics["loss"] for r in store.rounds(run.id)]
        assert losses[-1] < losses[0], name


@pytest.mark.parametrize("name", ["ternary", "rotated1", "rotated2", "int4", "int8", "bf16", "dense"])
def test_every_codec_learns_and_costs_what_it_says(tmp_path: Path, name: str) -> None:
    store, run = run_inline(tiny_config(tmp_path, **{"codec.name": name, "rounds.total": 4}))

    losses = [r.evaluations[0].metrics["loss"] for r in store.rounds(run.id)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["bf16", "int8", "int4", "rotated2", "ternary"])
def test_a_coded_broadcast_is_smaller_and_all_hold_the_same_bits(tmp_path: Path, name: str) -> None:
    whole, plain = run_inline(tiny_config(tmp_path, **{"adapter.rank": 16}))
    store, run = run_inline(tiny_config(tmp_path, **{"adapter.rank": 16, "codec.downlink": name}))

    # The client refuses a state whose digest is not the server's, so completing shows equal bits.
    first, later = store.rounds(run.id)[1], store.rounds(run.id)[3]
    assert run.status == "completed"
    assert max(u.bytes_down for u in later.updates) < 0.7 * min(u.bytes_down for u in first.updates)
    dense = whole.rounds(plain.id)[3].evaluations[0].metrics["loss"]
    assert later.evaluations[0].metrics["loss"] == pytest.approx(dense, abs=0.2)


def test_a_client_that_lost_the_base_of_a_broadcast_is_sent_the_whole_state(tmp_path: Path) -> None:
    class Forgetful:
        def __call__(self, message: Message, context: Context) -> Message:
            process_worker.cache_clear()
            return honest_app(message, context)

    config = tiny_config(tmp_path, **{"codec.downlink": "int8"})
    forgotten = run_inline(config, client_app=Forgetful())[1]
    assert forgotten.final_digest == run_inline(config)[1].final_digest


def test_partial_participation_asks_only_the_cohort(tmp_path: Path) -> None:
    store, run = run_inline(tiny_config(tmp_path, **{"rounds.cohort": 2, "rounds.total": 5}))

    cohorts = [tuple(update.client for update in record.updates) for record in store.rounds(run.id)[1:]]
    assert {len(cohort) for cohort in cohorts} == {2}
    assert len(set(cohorts)) > 1


def test_clients_evaluate_on_what_they_hold_out(tmp_path: Path) -> None:
    store, run = run_inline(tiny_config(tmp_path, **{"evaluation.federated": True}))

    federated = [e for e in store.rounds(run.id)[-1].evaluations if e.scope == "federated"]
    assert [e.num_examples for e in federated] == [9]
    assert "loss" in federated[0].metrics


def test_the_evaluation_before_training_is_the_base_models(tmp_path: Path) -> None:
    losses = {}
    for name in ("lora-sb", "pissa", "random"):
        store, run = run_inline(tiny_config(tmp_path, **{"adapter.initialiser": name, "rounds.total": 1}))
        losses[name] = store.rounds(run.id)[0].evaluations[0].metrics["loss"]
    assert losses["lora-sb"] == losses["random"] == pytest.approx(losses["pissa"], rel=1e-5)


Change = Callable[[Update], Update | bytes]


def _tampering(change: Change, *, client: int = 1) -> Callable[[Message, Context], Message]:
    """The honest client app, but what one client sends as an update goes through ``change``."""

    def app(message: Message, context: Context) -> Message:
        reply = honest_app(message, context)
        if message.metadata.message_type != "train" or context.node_config["partition-id"] != client:
            return reply
        update = decode_reply(open_envelope(unpack(reply.content), max_bytes=2**24))
        assert isinstance(update, Update)
        changed = change(update)
        sealed = changed if isinstance(changed, bytes) else seal(encode_reply(changed))
        return Message(pack(sealed), reply_to=message)

    return app


def _with_value(update: Update, value: float) -> Update:
    runtime = process_worker(ClientFolders.of_user())._runtime
    assert runtime is not None
    manifest = runtime.manifest
    arrays = {name: array.copy() for name, array in decode(update.shards, manifest, CodecContext()).items()}
    next(iter(arrays.values()))[0, 0] = value
    raw = np.concatenate([arrays[t.name].reshape(-1) for t in manifest.tensors]).astype("<f4").tobytes()
    return replace(update, shards=(replace(update.shards[0], blob=raw),))


def _other_shape(update: Update) -> Update:
    state = {"elsewhere": np.zeros((2, 2), np.float32)}
    return replace(
        update, shards=tuple(make_codec("dense").encode(state, Manifest.of(state), CodecContext()))
    )


def _with_model(update: Update, **digests: str) -> Update:
    return replace(update, model=ModelRef(**{**vars(update.model), **digests}))


_OTHER = "ab" * 32
_ATTACKS: dict[str, tuple[Change, str]] = {
    "nan": (lambda u: _with_value(u, float("nan")), "FEDFT-4014"),
    "infinity": (lambda u: _with_value(u, float("inf")), "FEDFT-4014"),
    "norm": (lambda u: _with_value(u, 900.0), "FEDFT-5016"),
    "shape": (_other_shape, "FEDFT-4012"),
    "round": (lambda u: replace(u, round=RoundRef(u.round.run_id, u.round.round + 1)), "FEDFT-5001"),
    "run": (lambda u: replace(u, round=RoundRef("another", u.round.round)), "FEDFT-5001"),
    "base": (lambda u: _with_model(u, base_digest=_OTHER), "FEDFT-5002"),
    "frame": (lambda u: _with_model(u, frame_digest=_OTHER), "FEDFT-5003"),
    "names": (lambda u: _with_model(u, manifest_digest=_OTHER), "FEDFT-5004"),
    "state": (lambda u: _with_model(u, global_state_digest=_OTHER), "FEDFT-5005"),
    "identity": (lambda u: replace(u, client_id="client-000"), "FEDFT-5007"),
    "no weight": (lambda u: replace(u, num_examples=0), "FEDFT-5008"),
    "huge weight": (lambda u: replace(u, num_examples=10**12), "FEDFT-5009"),
    "garbage": (lambda _u: b"\x00garbage", "FEDFT-4002"),
    "tampered": (lambda u: _flip_last_bit(seal(encode_reply(u))), "FEDFT-4004"),
}


def _flip_last_bit(envelope: bytes) -> bytes:
    return envelope[:-1] + bytes([envelope[-1] ^ 1])


@pytest.mark.parametrize("name", _ATTACKS)
def test_a_bad_update_is_refused_with_its_code_and_the_round_goes_on(tmp_path: Path, name: str) -> None:
    attack, code = _ATTACKS[name]
    settings = {"rounds.total": 1, "rounds.max_update_norm": 100.0, "codec.name": "dense"}
    config = tiny_config(tmp_path, **settings)
    store, run = run_inline(config, client_app=_tampering(attack))
    updates = {u.client: u for u in store.rounds(run.id)[1].updates}

    assert {key: u.status for key, u in updates.items()} == {
        "client-000": "accepted",
        "client-001": "refused",
        "client-002": "accepted",
    }
    assert updates["client-001"].code == code
    assert all(np.isfinite(value).all() for value in store.state(run.id, 1).values())
    assert run.final_digest == _without_client_one(config)


def _without_client_one(config: RunConfig) -> str:
    """The digest of the round in which client 1 does not answer at all."""

    def app(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train" and context.node_config["partition-id"] == 1:
            raise RuntimeError("gone")
        return honest_app(message, context)

    return run_inline(config, client_app=app)[1].final_digest


def test_too_few_updates_end_the_run_with_the_reasons_and_it_can_be_resumed(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    broken = True

    def app(message: Message, context: Context) -> Message:
        if broken and message.metadata.message_type == "train" and message.metadata.group_id == "2":
            raise RuntimeError("out of memory")
        return honest_app(message, context)

    store = RunStore(config.store.path)
    with pytest.raises(FedftError, match=r"FEDFT-6102.*out of memory"):
        run_inline(config, client_app=app, store=store)
    run = store.runs()[-1]
    assert run.status == "failed"
    assert run.rounds == 1
    assert any(event["kind"] == "client-failed" for event in store.events(run.id))

    broken = False
    resumed = run_inline(config, client_app=app, store=store, run=run)[1]
    assert resumed.final_digest == run_inline(config)[1].final_digest


def test_a_failed_client_is_asked_again(tmp_path: Path) -> None:
    failures = {"left": 2}

    def app(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train" and failures["left"]:
            failures["left"] -= 1
            raise RuntimeError("hiccup")
        return honest_app(message, context)

    config = tiny_config(tmp_path)
    run = run_inline(config, client_app=app)[1]
    assert run.final_digest == run_inline(config)[1].final_digest


def test_the_wrong_number_of_nodes_is_refused_before_training(tmp_path: Path) -> None:
    from fedft.config.load import to_json
    from fedft.coordinator.coordinator import Coordinator
    from fedft.transport.inline import InlineGrid

    config = tiny_config(tmp_path, **{"rounds.min_clients": 2})
    store = RunStore(config.store.path)
    run = store.create_run("tiny", to_json(config))
    with pytest.raises(FedftError, match=r"FEDFT-6101.*FEDFT-7004"):
        Coordinator(InlineGrid(honest_app, 2), store, run).execute()


def test_two_processes_cannot_carry_out_one_run(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    store = RunStore(config.store.path)
    run = store.create_run("tiny", "{}")
    with (
        store.lock(run.id),
        pytest.raises(FedftError, match="FEDFT-6007"),
        RunStore(config.store.path).lock(run.id),
    ):
        pass
