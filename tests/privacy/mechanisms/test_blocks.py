"""Bounds apart, against the mechanism with one bound and the formulas of the composition."""

from __future__ import annotations

import pytest
import torch
from dp_accounting import ComposedDpEvent, GaussianDpEvent
from dp_accounting.pld import PLDAccountant
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fedft.errors import FedftError
from fedft.privacy.mechanisms.blocks import Block, BlockMechanism, block_noise
from fedft.privacy.mechanisms.clipping import AUTO_S, FLAT, MARGIN, STABILITY, ClippingKind
from fedft.privacy.mechanisms.dp_sgd import DpSgd
from fedft.privacy.mechanisms.gaussian import GaussianMechanism
from tests.privacy.sources import NoNoise

HEAD, REST = torch.tensor([1, 4]), torch.tensor([0, 2, 3])


def blocks(sigma: float = 1.0, clipping: ClippingKind = FLAT, *, silent: bool = True) -> BlockMechanism:
    return BlockMechanism(
        [(HEAD, Block((), 0.5, 0.2)), (REST, Block((), 2.0, 0.8))],
        noise_multiplier=sigma,
        denominator=4.0,
        clipping=clipping,
        noise=NoNoise() if silent else None,
    )


def test_each_block_is_clipped_to_its_own_bound() -> None:
    rows = 10 * torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    rows[0] *= 1e-3
    expected = torch.zeros(5)
    for places, bound in ((HEAD, 0.5), (REST, 2.0)):
        part = rows[:, places]
        expected[places] = (part * (bound * MARGIN / part.norm(dim=1, keepdim=True)).clamp(max=1)).sum(0) / 4
    mechanism = blocks()
    mechanism.add(rows.clone())
    torch.testing.assert_close(mechanism.release(), expected, atol=1e-6, rtol=1e-5)
    assert mechanism.local_counts.units == 14
    assert mechanism.local_counts.clipped == 12


def test_each_block_has_its_own_noise() -> None:
    mechanism = blocks(3.0, silent=False)
    released = torch.stack([mechanism.release() for _ in range(4000)]) * 4.0
    for places, bound, share in ((HEAD, 0.5, 0.2), (REST, 2.0, 0.8)):
        assert float(released[:, places].std()) == pytest.approx(3.0 * bound / share**0.5, rel=0.03)
    assert float(torch.corrcoef(released.T).fill_diagonal_(0).abs().max()) < 0.08


@given(st.floats(0.5, 20), st.floats(0.05, 0.95))
def test_shares_of_one_draw_compose_to_the_claim(sigma: float, share: float) -> None:
    precision = block_noise(sigma, share) ** -2 + block_noise(sigma, 1 - share) ** -2
    assert precision == pytest.approx(sigma**-2)


def test_blocks_cost_what_one_release_costs_by_dp_accounting() -> None:
    parts = ComposedDpEvent([GaussianDpEvent(block_noise(1.5, share)) for share in (0.3, 0.7)])
    found = PLDAccountant().compose(parts).get_epsilon(1e-5)
    assert found == pytest.approx(PLDAccountant().compose(GaussianDpEvent(1.5)).get_epsilon(1e-5), abs=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        [(HEAD, Block((), 1.0, 0.2)), (REST, Block((), 1.0, 0.9))],
        [(HEAD, Block((), 1.0, 1.2)), (REST, Block((), 1.0, -0.2))],
        [(HEAD, Block((), 1.0, 0.5)), (HEAD, Block((), 1.0, 0.5))],
        [(HEAD, Block((), 1.0, 1.0))],
        [(HEAD, Block((), 0.0, 0.5)), (REST, Block((), 1.0, 0.5))],
    ],
)
def test_blocks_that_are_not_everything_once_are_refused(wrong: list[tuple[Tensor, Block]]) -> None:
    with pytest.raises(FedftError, match="FEDFT-8501"):
        BlockMechanism(wrong, noise_multiplier=1.0, denominator=1.0)


def test_auto_s_is_the_published_rule() -> None:
    """C / (‖g‖ + γ), arXiv 2206.07136."""
    rows = torch.tensor([[3.0, 4.0], [0.03, 0.04], [0.0, 0.0]])
    mechanism = GaussianMechanism(
        2, max_norm=0.7, noise_multiplier=1.0, denominator=1.0, clipping=AUTO_S, noise=NoNoise()
    )
    mechanism.add(rows.clone())
    weights = 0.7 / (rows.norm(dim=1, keepdim=True) + STABILITY)
    torch.testing.assert_close(mechanism.release(), (weights * rows).sum(0), rtol=1e-4, atol=0)


@given(st.floats(-1e3, 1e9), st.integers(0, 100))
def test_no_rule_leaves_a_contribution_above_the_bound(factor: float, seed: int) -> None:
    careless = ClippingKind(lambda norms, _: torch.full_like(norms, factor))
    rows = torch.randn(1, 30, generator=torch.Generator().manual_seed(seed)) * 10
    for right in ("add", "add_outer"):
        mechanism = GaussianMechanism(
            30, max_norm=0.7, noise_multiplier=1.0, denominator=1.0, clipping=careless, noise=NoNoise()
        )
        arguments = (rows.clone(),) if right == "add" else (rows[:, :5].clone(), rows[:, 5:11].clone())
        getattr(mechanism, right)(*arguments)
        assert float(mechanism.release().norm()) <= 0.7 * (1 + 1e-6)


def test_a_step_takes_blocks_of_all_its_parameters_and_of_no_fewer() -> None:
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 1))
    first, second = (tuple(layer.parameters()) for layer in model)

    def step(parts: list[Block]) -> DpSgd:
        return DpSgd(
            model,
            torch.optim.SGD(model.parameters(), lr=1.0),
            lambda module, batch: module(batch["x"])[:, 0],
            max_grad_norm=1.0,
            noise_multiplier=1.0,
            expected_batch=2.0,
            blocks=parts,
            noise=NoNoise(),
        )

    with pytest.raises(FedftError, match="FEDFT-8501"):
        step([Block(first, 1.0, 1.0)])
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with step([Block(first, 0.1, 0.5), Block(second, 0.3, 0.5)]) as private:
        private.accumulate({"x": torch.full((1, 3), 100.0)})
        private.step()
    moved = [b - p.detach() for b, p in zip(before, model.parameters(), strict=True)]
    assert float(moved[0].norm()) * 2 == pytest.approx(0.1, rel=1e-3)
    assert float(torch.cat([m.flatten() for m in moved[1:]]).norm()) * 2 == pytest.approx(0.3, rel=1e-3)
