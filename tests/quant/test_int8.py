"""Weight-only int8 against bitsandbytes, float64 and a dense layer."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor, nn

from fedft.errors import FedftError
from fedft.quant import INT8, NF4, QuantFormat, QuantisedLinear


def matrix(rows: int = 24, columns: int = 40, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)


def test_codes_and_scales_are_those_of_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = matrix()
    codes, absmax, _ = functional.int8_vectorwise_quant(weight.half())  # bfloat16 values fit in here

    ours = INT8.quantise(weight)

    assert torch.equal(ours.codes, codes)
    assert torch.equal(ours.scale, absmax / 127)


@pytest.mark.parametrize("seed", range(3))
def test_every_weight_is_within_half_a_step(seed: int) -> None:
    weight = matrix(seed=seed)
    weight[3] = 0
    stored = INT8.quantise(weight)

    step = weight.double().abs().amax(dim=1, keepdim=True) / 127
    error = (stored.dequantise(torch.float64) - weight.double()).abs()
    assert bool((error <= step / 2 * (1 + 1e-6)).all())
    assert not stored.dequantise(torch.float32)[3].any()
    assert stored.nbytes == 24 * 40 + 4 * 24


@pytest.mark.parametrize("format", [INT8, NF4], ids=["int8", "nf4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_layer_computes_what_a_dense_one_on_its_weight_does(
    format: QuantFormat, dtype: torch.dtype
) -> None:
    dense = nn.Linear(64, 24).to(dtype)
    layer = QuantisedLinear.of(dense, format)
    with torch.no_grad():
        dense.weight.copy_(layer.dense_weight())
    x = torch.randn(3, 5, 64, dtype=dtype, requires_grad=True)
    again = x.detach().clone().requires_grad_()

    layer(x).float().square().sum().backward()
    dense(again).float().square().sum().backward()

    assert x.grad is not None
    assert again.grad is not None
    assert torch.allclose(layer(x), dense(x), rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-2)
    assert torch.allclose(x.grad, again.grad, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=2e-1)


def test_no_dense_matrix_is_kept_for_backward() -> None:
    layer = QuantisedLinear.of(nn.Linear(40, 24, bias=False), INT8)
    made: list[weakref.ref[Tensor]] = []

    def note(tensor: Tensor) -> Tensor:
        made.append(weakref.ref(tensor))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer(torch.randn(2, 40, requires_grad=True))
    assert made == []


@pytest.mark.parametrize("format", [INT8, NF4], ids=["int8", "nf4"])
def test_what_is_stored_is_read_again(format: QuantFormat) -> None:
    stored = format.quantise(matrix())
    again = format.read(stored.state())

    assert format.marker in stored.state()
    assert again.shape == stored.shape == (24, 40)
    assert torch.equal(again.dequantise(torch.float32), stored.dequantise(torch.float32))
    assert format.empty((24, 40)).nbytes == stored.nbytes
    assert format.reads(format.describe([stored], [], "float32"))
    assert not any(other.reads(format.describe([stored], [], "float32")) for other in {INT8, NF4} - {format})


def damaged(**changes: Tensor) -> dict[str, Tensor]:
    stored = INT8.quantise(matrix())
    return stored.state() | {name.rstrip("_"): value for name, value in changes.items()}


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"": torch.zeros(2, 2, dtype=torch.int8)},
        damaged(int8_scale=torch.ones(23)),
        damaged(int8_scale=torch.ones(24, dtype=torch.float64)),
        damaged(int8_scale=torch.full((24,), torch.nan)),
        damaged(int8_scale=torch.full((24,), -1.0)),
        damaged(_=torch.zeros(24, 40)),
        damaged(_=torch.full((24, 40), -128, dtype=torch.int8)),
    ],
)
def test_a_damaged_weight_is_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(FedftError, match="FEDFT-9011"):
        INT8.read(state)


@pytest.mark.parametrize("weight", [torch.full((2, 2), torch.inf), torch.ones(2), torch.ones(2, 2).int()])
def test_what_cannot_be_quantised_is_refused(weight: Tensor) -> None:
    with pytest.raises(FedftError, match="FEDFT-9010"):
        INT8.quantise(weight)
