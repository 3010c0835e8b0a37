from __future__ import annotations

import math
from typing import TypeAlias

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from fedft.adapters import AdaptedLinear, Frame
from fedft.errors import FedftError
from tests.adapters.test_frame import make_frame
from tests.gradients import grad

Linear: TypeAlias = "nn.Linear | Conv1D"


def base_linear(kind: str, out: int, inside: int, *, bias: bool = True, seed: int = 0) -> Linear:
    generator = torch.Generator().manual_seed(seed)
    if kind == "conv1d":
        module: Linear = Conv1D(out, inside)
    else:
        module = nn.Linear(inside, out, bias=bias)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
        parameter.requires_grad_(False)
    return module


def dense(module: Linear) -> Tensor:
    weight: Tensor = module.weight.detach().double()
    return weight.T if isinstance(module, Conv1D) else weight


def rand(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bits(x: Tensor) -> Tensor:
    return x.view(torch.int32 if x.dtype == torch.float32 else torch.int16)


@given(
    st.sampled_from(["linear", "conv1d"]),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(1, 40),
    st.integers(1, 40),
    st.lists(st.integers(1, 5), min_size=0, max_size=2),
    st.integers(0, 1000),
    st.data(),
)
@settings(max_examples=120, deadline=None)
def test_a_zero_r_gives_the_base_output_bit_for_bit(
    kind: str, dtype: torch.dtype, out: int, inside: int, lead: list[int], seed: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(1, min(out, inside)))
    frame = make_frame(out, inside, rank, r0=torch.zeros(rank, rank), scale=3.0)
    base = base_linear(kind, out, inside, seed=seed).to(dtype)
    # Products this small underflow to zeros of both signs.
    exponent = data.draw(st.sampled_from([0, -60, -140]))
    base.weight.data.mul_(2.0**exponent)
    base.bias.data.mul_(data.draw(st.sampled_from([0.0, -0.0, 1.0])))
    x = rand(*lead, inside, seed=seed).mul_(2.0**exponent).to(dtype)
    assert torch.equal(bits(AdaptedLinear(base, frame)(x)), bits(base(x)))


def test_the_negative_zero_of_a_base_output_survives() -> None:
    base = base_linear("linear", 9, 1)
    base.weight.data = torch.full((9, 1), -1e-30)
    base.bias.data = torch.full((9,), -0.0)
    x = torch.full((1,), 1e-30)
    assert base(x).signbit().all()  # the premise
    frame = make_frame(9, 1, 1, r0=torch.zeros(1, 1))
    assert AdaptedLinear(base, frame)(x).signbit().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("tokens", "out", "inside", "rank"), [(1, 9, 1, 1), (1, 64, 48, 8), (300, 128, 96, 16)]
)
def test_a_zero_r_gives_the_base_output_bit_for_bit_on_a_gpu(
    dtype: torch.dtype, tokens: int, out: int, inside: int, rank: int
) -> None:
    base = base_linear("linear", out, inside).to("cuda", dtype)
    base.weight.data.neg_().mul_(2.0**-100)
    base.bias.data.mul_(-0.0)
    x = rand(tokens, inside).mul_(2.0**-100).to("cuda", dtype)
    layer = AdaptedLinear(base, make_frame(out, inside, rank, r0=torch.zeros(rank, rank)))
    assert torch.equal(bits(layer(x)), bits(base(x)))


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5), (0, 5), (2, 0, 5)])
def test_forward_equals_the_dense_layer(kind: str, shape: tuple[int, ...]) -> None:
    base, frame = base_linear(kind, 6, 5), make_frame(6, 5, 3)
    x = rand(*shape)
    expected = x.double() @ (dense(base) + frame.delta(frame.r0)).T + base.bias.double()
    y = AdaptedLinear(base, frame)(x)
    assert y.shape == expected.shape
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-6)


def test_bfloat16_is_close_to_the_dense_layer_of_the_same_weights() -> None:
    base, frame = base_linear("linear", 64, 96).bfloat16(), make_frame(64, 96, 16)
    layer = AdaptedLinear(base, frame)
    x = rand(40, 96).bfloat16()
    weight = base.weight.double() + layer.B.double() @ frame.r0.double() @ layer.A.double()
    expected = x.double() @ weight.T + base.bias.double()
    y = layer(x)
    assert y.dtype == torch.bfloat16
    assert layer.R.dtype == torch.float32
    assert (y.double() - expected).norm() < 4e-3 * expected.norm()


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize("bias", [True, False])
def test_gradcheck_in_float64(kind: str, bias: bool) -> None:
    layer = AdaptedLinear(base_linear(kind, 6, 5, bias=bias), make_frame(6, 5, 3)).double()
    x = rand(2, 4, 5).double().requires_grad_()

    def forward(x: Tensor, R: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(layer, {"R": R}, (x,))
        return y

    assert torch.autograd.gradcheck(forward, (x, layer.R))


def test_gradient_of_r_is_s_bt_g_at() -> None:
    base, frame = base_linear("linear", 24, 20), make_frame(24, 20, 8)
    layer, x = AdaptedLinear(base, frame), rand(5, 7, 20)
    layer(x).tanh().square().sum().backward()
    weight = (dense(base) + frame.delta(frame.r0)).requires_grad_()
    nn.functional.linear(x.double(), weight, base.bias.double()).tanh().square().sum().backward()
    expected = frame.scale * frame.b.double().T @ grad(weight) @ frame.a.double().T
    assert (grad(layer.R).double() - expected).norm() <= 1e-5 * expected.norm()


def test_backward_keeps_only_u() -> None:
    base, frame = base_linear("linear", 48, 64), make_frame(48, 64, 4)
    layer, x = AdaptedLinear(base, frame), rand(3, 10, 64).requires_grad_()
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y = layer(x)
    frozen = {layer.R.data_ptr(), layer.A.data_ptr(), layer.B.data_ptr(), base.weight.data_ptr()}
    activations = [t for t in kept if t.data_ptr() not in frozen]
    assert [tuple(t.shape) for t in activations] == [(30, 4)]
    assert sum(t.numel() * t.element_size() for t in activations) == 3 * 10 * 4 * 4
    torch.testing.assert_close(activations[0], x.detach().reshape(30, 64) @ frame.a.T)
    y.sum().backward()


def test_nothing_is_kept_when_nothing_is_trained() -> None:
    layer, x = AdaptedLinear(base_linear("linear", 6, 5), make_frame()), rand(3, 5).requires_grad_()
    layer.R.requires_grad_(False)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        layer(x).sum().backward()
    assert [tuple(t.shape) for t in kept] == [(3, 3)]
    assert x.grad is not None
    assert layer.R.grad is None


def test_only_r_is_trainable_and_the_base_stays_as_it_was() -> None:
    base = base_linear("linear", 6, 5)
    layer = AdaptedLinear(base, make_frame())
    assert [name for name, p in layer.named_parameters() if p.requires_grad] == ["R"]
    before = base.weight.clone()
    optimiser = torch.optim.AdamW([layer.R], lr=0.1)
    layer(rand(3, 5)).square().sum().backward()
    optimiser.step()
    assert torch.equal(base.weight, before)
    assert base.weight.grad is None


def test_an_input_that_needs_no_gradient_gets_none() -> None:
    layer, x = AdaptedLinear(base_linear("linear", 6, 5), make_frame()), rand(3, 5)
    layer(x).sum().backward()
    assert x.grad is None
    assert layer.R.grad is not None


def test_used_twice_in_a_forward_pass_the_gradients_add() -> None:
    layer, x = AdaptedLinear(base_linear("linear", 5, 5), make_frame(5, 5)).double(), rand(4, 5).double()
    layer(layer(x)).square().sum().backward()
    both = grad(layer.R).clone()
    first = AdaptedLinear(layer.base, make_frame(5, 5)).double()
    second = AdaptedLinear(layer.base, make_frame(5, 5)).double()
    second(first(x)).square().sum().backward()
    torch.testing.assert_close(both, grad(first.R) + grad(second.R))


def test_gradient_checkpointing_changes_nothing() -> None:
    layer, x = AdaptedLinear(base_linear("linear", 5, 5), make_frame(5, 5)), rand(4, 5)
    layer(layer(x).tanh()).square().sum().backward()
    plain = grad(layer.R).clone()
    layer.R.grad = None
    y = checkpoint(lambda x: layer(layer(x).tanh()), x, use_reentrant=False)
    y.square().sum().backward()
    assert torch.equal(grad(layer.R), plain)


def test_a_changed_r_between_forward_and_backward_is_an_error() -> None:
    layer = AdaptedLinear(base_linear("linear", 6, 5), make_frame())
    y = layer(rand(3, 5))
    with torch.no_grad():
        layer.R.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 5), (4, 2, 3, 5), (0, 3, 5)])
def test_the_sink_gets_what_per_sample_gradients_are_made_of(shape: tuple[int, ...]) -> None:
    class Sink:
        def __init__(self) -> None:
            self.seen: list[tuple[AdaptedLinear, Tensor, Tensor]] = []

        def record(self, layer: AdaptedLinear, u: Tensor, v: Tensor) -> None:
            self.seen.append((layer, u, v))

    frame, x, sink = make_frame(scale=2.5), rand(*shape), Sink()
    layer = AdaptedLinear(base_linear("linear", 6, 5), frame)
    alone: list[Tensor] = []
    for sample in x:
        layer.R.grad = None
        layer(sample[None]).tanh().sum().backward()
        alone.append(grad(layer.R))
    layer.R.grad = None
    layer.per_sample_sink = sink
    layer(x).tanh().sum().backward()
    assert layer.R.grad is None
    ((seen, u, v),) = sink.seen
    assert seen is layer
    assert u.shape == v.shape == (len(x), math.prod(shape[1:-1]), 3)
    assert len(alone) == len(x)
    for found, expected in zip(v.mT @ u, alone, strict=True):
        torch.testing.assert_close(found, expected)


def test_autocast_is_refused() -> None:
    layer = AdaptedLinear(base_linear("linear", 6, 5), make_frame())
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(FedftError, match="FEDFT-2120"):
        layer(rand(3, 5))


def test_a_frame_of_another_shape_is_refused() -> None:
    with pytest.raises(FedftError, match="FEDFT-2114"):
        AdaptedLinear(base_linear("linear", 5, 6), make_frame(6, 5))
    with pytest.raises(FedftError, match="FEDFT-2114"):
        AdaptedLinear(base_linear("conv1d", 5, 6), make_frame(6, 5))


@pytest.mark.parametrize("module", [nn.Embedding(6, 5), nn.Conv1d(5, 6, 1), nn.Bilinear(5, 5, 6)])
def test_other_modules_are_refused(module: nn.Module) -> None:
    with pytest.raises(FedftError, match="FEDFT-2110"):
        AdaptedLinear(module, make_frame(6, 5))


def test_a_base_with_a_weight_of_its_own_form() -> None:
    class Halved(nn.Module):
        """Stands for a quantised layer: keeps half of its weight."""

        def __init__(self, weight: Tensor) -> None:
            super().__init__()
            self.out_features, self.in_features = weight.shape
            self.compute_dtype, self.device = torch.float32, weight.device
            self.register_buffer("stored", weight / 2)

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.dense_weight().T

        def input_gradient(self, grad: Tensor) -> Tensor:
            return grad @ self.dense_weight()

        def dense_weight(self) -> Tensor:
            return self.get_buffer("stored") * 2

    plain = base_linear("linear", 6, 5, bias=False)
    frame: Frame = make_frame()
    one, other = AdaptedLinear(plain, frame), AdaptedLinear(Halved(plain.weight.detach()), frame)
    x, z = rand(4, 5).requires_grad_(), rand(4, 5).requires_grad_()
    y, w = one(x), other(z)
    (y.square().sum() + w.square().sum()).backward()
    torch.testing.assert_close(y, w)
    torch.testing.assert_close(x.grad, z.grad)
    torch.testing.assert_close(one.R.grad, other.R.grad)
