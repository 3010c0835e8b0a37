"""Whole runs whose unit of privacy is a client, over the inline carrier, with the product's own clients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dp_accounting import pld
from scipy import stats

from fedft.client.app import app
from fedft.client.worker import update_pipeline
from fedft.client.worker.local_privacy import Clip
from fedft.client.worker.update_pipeline import OutgoingUpdate
from fedft.codecs import Manifest
from fedft.config import RunConfig
from fedft.config.load import to_json
from fedft.coordinator import central_dp
from fedft.coordinator.central_dp import CentralPrivacy
from fedft.errors import FedftError
from fedft.privacy.mechanisms import client_level
from fedft.report.page import render
from fedft.report.spending import EVERY_CLIENT, spending
from fedft.statements import PrivacyStatement
from fedft.store import RoundRecord, RunRecord, RunStore
from fedft.wire import Instruction, InstructionKind, ModelRef, RoundRef
from tests.federation import run_inline, tiny_config
from tests.privacy.sources import NoNoise

PRIVATE = {
    "privacy.mechanism": "client",
    "privacy.epsilon": 5.0,
    "privacy.delta": 1e-3,
    "privacy.client_max_norm": 0.01,
    "rounds.weighting": "uniform",
    "rounds.min_clients": 2,
}
CLIENTS = 3


@pytest.fixture
def noiseless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_level, "SecureNoise", NoNoise)


def _run(tmp_path: Path, **changes: Any) -> tuple[RunConfig, RunStore, RunRecord]:
    config = tiny_config(tmp_path, **{**PRIVATE, **changes})
    return config, *run_inline(config)


def _norm(store: RunStore, run: RunRecord, number: int) -> float:
    before, after = store.state(run.id, number - 1), store.state(run.id, number)
    return float(np.sqrt(sum(((after[name] - before[name]).astype(float) ** 2).sum() for name in after)))


def _trained(store: RunStore, run: RunRecord) -> list[RoundRecord]:
    return [record for record in store.rounds(run.id) if record.round]


def _stated(store: RunStore, run: RunRecord) -> list[PrivacyStatement]:
    return [record.privacy for record in _trained(store, run) if record.privacy is not None]


def test_the_ledger_and_the_record_hold_what_the_accountant_says(tmp_path: Path) -> None:
    _, store, run = _run(tmp_path)

    spent = _stated(store, run)
    sigma = spent[0].noise_multiplier
    for number, row in enumerate(spent, start=1):
        composed = pld.privacy_loss_distribution.from_gaussian_mechanism(sigma / number**0.5)
        assert row.epsilon == pytest.approx(composed.get_epsilon_for_delta(1e-3), rel=5e-3)
    assert 4.95 < spent[-1].epsilon <= 5.0
    (line,) = spending(store.rounds(run.id))
    assert (line.client, line.rounds, line.statement) == (EVERY_CLIENT, 3, spent[-1])
    page = " ".join(render(run, store.rounds(run.id), store.events(run.id)).split())
    assert "the bound of one client's update 0.01 in the last round" in page


@pytest.mark.parametrize("codec", ["dense", "ternary", "rotated1", "int8"])
def test_updates_keep_within_the_bound_whatever_the_code(tmp_path: Path, noiseless: None, codec: str) -> None:
    _, store, run = _run(tmp_path, **{"codec.name": codec})

    for record in _trained(store, run):
        assert [update.status for update in record.updates] == ["accepted"] * CLIENTS
        assert 0 < _norm(store, run, record.round) <= 0.01 * 1.001


def test_the_noise_has_the_scale_of_the_bound_over_the_expected_clients(tmp_path: Path) -> None:
    _, store, run = _run(tmp_path, **{"privacy.noise_multiplier": 100.0})

    size = sum(array.size for array in store.state(run.id, 0).values())
    expected = 100 * 0.01 * 1.001 / CLIENTS * size**0.5
    for number in (1, 2, 3):
        assert _norm(store, run, number) == pytest.approx(expected, rel=6 / (2 * size) ** 0.5)


def test_an_update_above_the_bound_is_refused_and_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lying(self: Clip, update: OutgoingUpdate, context: Any) -> OutgoingUpdate:
        return replace(update, arrays={name: array + 1.0 for name, array in update.arrays.items()})

    monkeypatch.setattr(Clip, "apply", lying)
    monkeypatch.setattr(update_pipeline, "encode_bounded", lambda t, codec, m, c, most: codec.encode(t, m, c))
    _, store, run = _run(tmp_path, **{"codec.name": "dense", "codec.error_feedback": False})
    codes = {update.code for record in _trained(store, run) for update in record.updates}
    assert codes == {"FEDFT-5016"}


def test_a_bound_that_follows_the_norms_goes_on_after_an_interruption(
    tmp_path: Path, noiseless: None
) -> None:
    adaptive = {"privacy.clip_quantile": 0.5, "privacy.client_max_norm": 1e-6, "rounds.total": 4}
    config, store, run = _run(tmp_path, **adaptive)

    bounds = [(r.privacy.max_norm, r.next_max_norm) for r in _trained(store, run) if r.privacy]
    # Every update is clipped: b = 0, so the bound grows by exp(rate · quantile) each round.
    for number, (used, following) in enumerate(bounds):
        assert used == pytest.approx(1e-6 * np.exp(0.1) ** number, rel=1e-6)
        assert following == pytest.approx(used * np.exp(0.1), rel=1e-6)
    store.roll_back(run.id, 2)

    privacy = CentralPrivacy(config, run.id, store, Manifest.of(store.state(run.id, 2)))
    assert privacy.max_norm == bounds[2][0]


def test_without_the_bit_an_update_does_not_count_where_the_bound_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    honest = Clip.apply
    monkeypatch.setattr(Clip, "apply", lambda *asked: replace(honest(*asked), metrics={}))
    _, store, run = _run(tmp_path, **{"privacy.clip_quantile": 0.5})
    codes = {update.code for record in _trained(store, run) for update in record.updates}
    assert codes == {"FEDFT-5017"}


def test_clients_are_drawn_one_by_one_and_a_round_may_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coins = {2: 0.1, 3: 0.9, 4: 0.1}  # by entries of the ledger: one client, nobody, everybody
    monkeypatch.setattr(
        central_dp,
        "_coin",
        lambda _secret, entries, client: (
            coins[entries] if client == "client-000" else 0.9 if entries < 4 else 0.1
        ),
    )
    _, store, run = _run(tmp_path, **{"privacy.client_rate": 0.5})

    assert [len(record.updates) for record in _trained(store, run)] == [1, 0, 3]
    assert all(_norm(store, run, number) > 0 for number in (1, 2, 3))
    assert _stated(store, run)[0].sample_rate == 0.5


def _others_fail(message: Any, context: Any) -> Any:
    """Nobody answers a round of training but client-000."""
    if message.metadata.message_type == "train" and context.node_config["partition-id"]:
        raise RuntimeError("colluding")
    return app(message, context)


def test_others_that_fail_do_not_decide_in_how_many_rounds_a_client_is(tmp_path: Path) -> None:
    changes = {"privacy.client_rate": 0.2, "rounds.total": 40, "rounds.retries": 0, "training.steps": 1}
    changes |= {"evaluation.every": 0, "privacy.epsilon": 50.0}
    config = tiny_config(tmp_path, **{**PRIVATE, **changes})
    store, run = run_inline(config, client_app=_others_fail)

    rounds = _trained(store, run)
    asked = [update.client for record in rounds for update in record.updates]
    counted = [u.client for record in rounds for u in record.updates if u.status == "accepted"]
    assert len(rounds) == 40  # none was refused, whoever answered
    assert set(counted) == {"client-000"}
    assert counted.count("client-000") == asked.count("client-000")
    assert stats.binomtest(counted.count("client-000"), 40, 0.2).pvalue > 1e-6
    assert any(len(record.updates) == 2 for record in rounds)


def test_a_round_that_is_begun_again_has_the_draw_that_it_had(tmp_path: Path) -> None:
    """A server that can be made to fail would else be made to draw until the draw suits."""
    config = tiny_config(tmp_path, **{**PRIVATE, "privacy.client_rate": 0.5, "privacy.spare_rounds": 5})
    store = RunStore(config.store.path)
    run = store.create_run("tiny", to_json(config))
    manifest = Manifest.of({"a": np.zeros(4, np.float32)})
    clients = [f"client-{index:03d}" for index in range(200)]

    def privacy() -> CentralPrivacy:
        return CentralPrivacy(config, run.id, store, manifest)

    draws = [privacy().draw(1, clients) for _ in range(3)]
    assert draws[0] == draws[1] == draws[2]
    assert stats.binomtest(len(draws[0]), 200, 0.5).pvalue > 1e-6
    privacy()._charge(1)  # a release of its own has a draw of its own, also when the round is repeated
    assert privacy().draw(1, clients) != draws[0]
    key = store.folder / "privacy" / run.id / "draw.key"
    assert key.stat().st_mode & 0o077 == 0
    other = store.create_run("tiny", to_json(config))
    assert CentralPrivacy(config, other.id, store, manifest).draw(1, clients) != draws[0]


def test_coins_are_uniform_and_independent_of_each_other() -> None:
    secret = bytes(range(32))
    coins = np.array([[central_dp._coin(secret, n, f"client-{c}") for c in range(50)] for n in range(100)])

    assert stats.kstest(coins.ravel(), "uniform").pvalue > 1e-6
    assert abs(np.corrcoef(coins[:-1].ravel(), coins[1:].ravel())[0, 1]) < 0.08
    assert abs(np.corrcoef(coins[:, 0], coins[:, 1])[0, 1]) < 0.5


def test_rounds_that_are_repeated_are_charged_again_and_end_where_the_budget_does(tmp_path: Path) -> None:
    config, store, run = _run(tmp_path, **{"privacy.spare_rounds": 1})
    store.roll_back(run.id, 1)

    with pytest.raises(FedftError, match=r"FEDFT-8207.*'clients'"):
        run_inline(config, store=store, run=store.run(run.id))
    assert store.last_round(run.id) == 2


def test_a_ledger_that_is_missing_is_refused(tmp_path: Path) -> None:
    config, store, run = _run(tmp_path, **{"privacy.spare_rounds": 3})
    store.roll_back(run.id, 1)
    (store.folder / "privacy" / run.id / "ledger.sqlite").unlink()

    with pytest.raises(FedftError, match="FEDFT-8201"):
        run_inline(config, store=store, run=store.run(run.id))
    assert store.last_round(run.id) == 1


def test_a_budget_that_no_noise_meets_or_a_delta_too_large_stops_the_run_before_it_begins(
    tmp_path: Path,
) -> None:
    config = tiny_config(tmp_path, **{**PRIVATE, "privacy.delta": 0.4})
    store = RunStore(config.store.path)
    run = store.create_run("tiny", to_json(config))
    with pytest.raises(FedftError, match="FEDFT-8001"):
        run_inline(config, store=store, run=run)
    assert store.last_round(run.id) is None


def test_a_client_clips_before_its_residual_is_added(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **PRIVATE)
    delta = {"a": np.full(3, 2.0, np.float32), "b": np.full(1, 2.0, np.float32)}
    asked = Instruction(
        RoundRef("run", 1), InstructionKind.TRAIN, ModelRef("", "", "", ""), "", max_update_norm=1.0
    )

    manifest = Manifest.of(delta)

    def clip(asked: Instruction) -> Any:
        context: Any = SimpleNamespace(
            instruction=asked, runtime=SimpleNamespace(config=config, manifest=manifest)
        )
        update = Clip().apply(OutgoingUpdate(delta), context)
        return update.arrays, update.metrics

    clipped, told = clip(asked)

    assert told == {}
    for name, array in clipped.items():
        np.testing.assert_allclose(array, 0.5 * np.ones_like(delta[name]), rtol=1e-4)
    with pytest.raises(FedftError, match="FEDFT-8324"):
        clip(replace(asked, max_update_norm=0.0))
