from __future__ import annotations

import multiprocessing
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft.codecs import Codec, CodecContext, Manifest, Shard, decode, make_codec
from fedft.codecs.error_feedback import ErrorFeedback, Pending, ResidualIdentity
from fedft.codecs.ternary import Ternary
from fedft.errors import FedftError

State = dict[str, np.ndarray]
SHAPES = {"a": (20, 20), "b": (30,)}
CONTEXT = CodecContext(seed=b"s", generator=np.random.default_rng(0))


def random_delta(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


MANIFEST = Manifest.of(random_delta(0))
IDENTITY = ResidualIdentity("run-1", "ab" * 32, MANIFEST.digest())
TERNARY = make_codec("ternary", density=0.1)


def make_feedback() -> ErrorFeedback:
    return ErrorFeedback(IDENTITY, MANIFEST)


def prepare(
    feedback: ErrorFeedback, delta: State, codec: Codec = TERNARY, round: int = 0
) -> tuple[Shard, ...]:
    return feedback.prepare(delta, codec, CONTEXT, round=round, update_seq=round)


def flat(arrays: State) -> np.ndarray:
    return MANIFEST.flatten(arrays).astype(np.float64)


def sent(shards: Sequence[Shard]) -> np.ndarray:
    return flat(decode(shards, MANIFEST, CONTEXT))


def test_update_plus_residual_is_everything_trained() -> None:
    """Σ deltas = Σ decoded updates + residual, whatever the codec drops (arXiv 1901.09847, lemma 3)."""
    feedback, trained, received = make_feedback(), np.zeros(430), np.zeros(430)
    for round in range(30):
        delta = random_delta(round)
        shards = prepare(feedback, delta, round=round)
        feedback.commit()
        trained += flat(delta)
        received += sent(shards)
        np.testing.assert_allclose(received + flat(feedback.residual), trained, atol=1e-4)
    assert np.linalg.norm(received - trained) < 0.7 * np.linalg.norm(trained)


def test_a_refused_update_goes_back_whole() -> None:
    feedback = make_feedback()
    prepare(feedback, random_delta(0))
    feedback.commit()
    before = flat(feedback.residual)
    prepare(feedback, random_delta(1), round=1)
    feedback.abort()
    np.testing.assert_allclose(flat(feedback.residual), before + flat(random_delta(1)), atol=1e-6)


def test_a_repeated_round_starts_where_the_first_attempt_did() -> None:
    feedback = make_feedback()
    prepare(feedback, random_delta(0))
    feedback.commit()
    before = feedback.residual
    first = prepare(feedback, random_delta(1), round=1)
    feedback.discard()
    assert all(np.array_equal(before[name], feedback.residual[name]) for name in before)
    assert prepare(feedback, random_delta(1), round=1) == first


def test_the_residual_changes_only_when_settled() -> None:
    feedback = make_feedback()
    prepare(feedback, random_delta(0))
    assert not flat(feedback.residual).any()
    assert feedback.pending == Pending(0, 0)


@pytest.mark.parametrize("accepted", [[], [Pending(0, 1)], [Pending(1, 0)], [Pending(0, 0), Pending(7, 7)]])
def test_settle_commits_exactly_what_was_accepted(accepted: list[Pending]) -> None:
    feedback = make_feedback()
    prepare(feedback, random_delta(0))
    committed = feedback.settle(accepted)
    assert committed == (Pending(0, 0) in accepted)
    expected = flat(random_delta(0))
    if committed:
        assert np.linalg.norm(flat(feedback.residual)) < np.linalg.norm(expected)
    else:
        assert np.array_equal(flat(feedback.residual), expected)
    assert feedback.settle(accepted) is False, "nothing is pending any more"


def test_two_updates_cannot_be_pending() -> None:
    feedback = make_feedback()
    prepare(feedback, random_delta(0))
    with pytest.raises(FedftError, match="FEDFT-4020"):
        prepare(feedback, random_delta(1))
    feedback.commit()
    for close in (feedback.commit, feedback.abort, feedback.discard):
        with pytest.raises(FedftError, match="FEDFT-4020"):
            close()


class Overshooting(Ternary):
    """Twice what a good codec gives: ‖v - C(v)‖ ≥ ‖v‖."""

    name: ClassVar[str] = "overshooting"

    def encode(self, tensors: State, manifest: Manifest, context: CodecContext) -> list[Shard]:
        (shard,) = TERNARY.encode(tensors, manifest, context)
        scales = np.frombuffer(shard.scales, dtype="<f4") * np.float32(2.01)
        return [replace(shard, scales=scales.tobytes())]


@pytest.mark.parametrize(
    "codec", [Overshooting(), make_codec("ternary", density=0.1, rule="compeft", alpha=10.0)]
)
def test_a_code_that_is_no_contraction_is_refused_and_changes_nothing(codec: Codec) -> None:
    feedback = make_feedback()
    with pytest.raises(FedftError, match="FEDFT-4018"):
        prepare(feedback, random_delta(0), codec)
    assert feedback.pending is None
    assert not flat(feedback.residual).any()


@pytest.mark.parametrize("name", ["rotated1", "rotated2", "int4", "int8", "bf16", "dense"])
def test_codecs_with_a_small_error_are_accepted(name: str) -> None:
    feedback = make_feedback()
    shards = prepare(feedback, random_delta(0), make_codec(name))
    feedback.commit()
    np.testing.assert_allclose(sent(shards) + flat(feedback.residual), flat(random_delta(0)), atol=1e-5)


def test_a_delta_of_zeros_is_no_error() -> None:
    feedback = make_feedback()
    prepare(feedback, {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()})
    feedback.commit()
    assert not flat(feedback.residual).any()


def test_a_delta_that_is_not_finite_changes_nothing() -> None:
    feedback = make_feedback()
    with pytest.raises(FedftError, match="FEDFT-4016"):
        prepare(feedback, random_delta(0) | {"b": np.full(30, np.nan, np.float32)})
    assert feedback.pending is None
    assert not flat(feedback.residual).any()


@pytest.mark.parametrize("pending", [False, True])
@pytest.mark.parametrize("close", ["commit", "abort", "discard"])
def test_saved_and_loaded_it_goes_on_as_before(tmp_path: Path, pending: bool, close: str) -> None:
    feedback = make_feedback()
    prepare(feedback, random_delta(0))
    feedback.commit()
    if pending:
        prepare(feedback, random_delta(1), round=1)
    feedback.save(tmp_path / "residual.safetensors")
    again = ErrorFeedback.load(tmp_path / "residual.safetensors", IDENTITY, MANIFEST)
    assert again.pending == feedback.pending
    for one in (feedback, again):
        if pending:
            getattr(one, close)()
    assert flat(again.residual).tobytes() == flat(feedback.residual).tobytes()
    assert prepare(again, random_delta(2)) == prepare(feedback, random_delta(2))


@pytest.mark.parametrize(
    "other", [replace(IDENTITY, run_id="run-2"), replace(IDENTITY, frame_digest="cd" * 32)]
)
def test_another_run_or_frame_is_refused(tmp_path: Path, other: ResidualIdentity) -> None:
    make_feedback().save(tmp_path / "r")
    with pytest.raises(FedftError, match=r"FEDFT-4021 .*run-1"):
        ErrorFeedback.load(tmp_path / "r", other, MANIFEST)


def test_another_manifest_is_refused(tmp_path: Path) -> None:
    make_feedback().save(tmp_path / "r")
    other = Manifest.of({"a": np.zeros(3, np.float32)})
    with pytest.raises(FedftError, match="FEDFT-4021"):
        ErrorFeedback.load(tmp_path / "r", replace(IDENTITY, manifest_digest=other.digest()), other)
    with pytest.raises(FedftError, match="FEDFT-4021"):
        ErrorFeedback(IDENTITY, other)


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign", "missing vector"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    from safetensors.numpy import save

    path = tmp_path / "r"
    feedback = make_feedback()
    prepare(feedback, random_delta(0))
    feedback.save(path)
    data = path.read_bytes()
    path.write_bytes(
        {
            "cut": data[:-1],
            "empty": b"",
            "foreign": save({"residual": np.zeros(430, np.float32)}),
            "missing vector": data.replace(b'"remainder"', b'"remaindes"'),
        }[damage]
    )
    with pytest.raises(FedftError, match="FEDFT-4022"):
        ErrorFeedback.load(path, IDENTITY, MANIFEST)


STEPS = st.lists(st.sampled_from(["train", "accept", "lose", "acknowledge", "restart"]), max_size=40)


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_or_doubled_in_any_order_of_events(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    """Server's sum + client's residual = everything trained, whenever no update is pending."""
    path = tmp_path_factory.mktemp("ef") / "residual"
    feedback, trained, summed = make_feedback(), np.zeros(430), np.zeros(430)
    accepted: list[Pending] = []
    shards: Sequence[Shard] = ()
    round = 0
    feedback.save(path)
    for step in [*steps, "acknowledge"]:
        if step == "train" and feedback.pending is None:
            shards = prepare(feedback, random_delta(round), round=round)
            feedback.save(path)
            trained += flat(random_delta(round))
            round += 1
        elif step == "accept" and feedback.pending and feedback.pending not in accepted:
            accepted.append(feedback.pending)
            summed += sent(shards)
        elif step == "acknowledge":
            feedback.settle(accepted)
            feedback.save(path)
        elif step == "restart":
            feedback = ErrorFeedback.load(path, IDENTITY, MANIFEST)
    np.testing.assert_allclose(summed + flat(feedback.residual), trained, atol=1e-4)


# A real process, really killed. Round t contributes 4**(t % 11) to element t // 11, so that each base-4
# digit of the sum says how often the round was counted; float32 holds eleven digits exactly.
ROUNDS, DIGITS = 44, 11
COUNTERS = Manifest.of({"x": np.zeros(ROUNDS // DIGITS, np.float32)})
COUNTER_IDENTITY = ResidualIdentity("run", "", COUNTERS.digest())


def contribution(round: int) -> dict[str, np.ndarray]:
    delta = np.zeros(ROUNDS // DIGITS, np.float32)
    delta[round // DIGITS] = 4 ** (round % DIGITS)
    return {"x": delta}


def inbox(folder: Path) -> list[Pending]:
    return [Pending(int(path.stem), int(path.stem)) for path in folder.glob("*.update")]


def client(folder: Path) -> None:
    """Settle, train, save, send; begins anew after each kill with what is on the disk."""
    path = folder / "residual"
    feedback = ErrorFeedback(COUNTER_IDENTITY, COUNTERS)
    if path.exists():
        feedback = ErrorFeedback.load(path, COUNTER_IDENTITY, COUNTERS)
        if feedback.pending is None:
            return  # killed after the last save
    while True:
        round = feedback.pending.round + 1 if feedback.pending else 0
        feedback.settle(inbox(folder))
        if round == ROUNDS:
            feedback.save(path)
            return
        shards = feedback.prepare(
            contribution(round), make_codec("dense"), CONTEXT, round=round, update_seq=round
        )
        time.sleep(0.001)  # so that a kill meets every place between two steps
        feedback.save(path)
        time.sleep(0.001)
        if round % 5 != 4:  # the server refuses every fifth, so the residual is really used
            temporary = folder / f"{round}.sending"
            temporary.write_bytes(shards[0].blob)
            temporary.replace(folder / f"{round}.update")
            time.sleep(0.001)


def test_a_client_killed_at_random_moments_counts_every_round_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    moments = random.Random(7)
    kills = 0
    while True:
        process = fork.Process(target=client, args=(tmp_path,))
        process.start()
        process.join(moments.uniform(0.001, 0.02) if kills < 50 else 60)
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL, "the client failed by itself"
        kills += 1
    assert kills >= 5
    feedback = ErrorFeedback.load(tmp_path / "residual", COUNTER_IDENTITY, COUNTERS)
    total = feedback.residual["x"].astype(np.int64)
    for path in tmp_path.glob("*.update"):
        total += np.frombuffer(path.read_bytes(), dtype="<f4").astype(np.int64)
    digits = [[int(value) // 4**i % 4 for i in range(DIGITS)] for value in total]
    assert digits == [[1] * DIGITS] * (ROUNDS // DIGITS)
    assert feedback.residual["x"].any() or ROUNDS % 5 != 0
