"""The frozen NF4 layer, alone and under a square adapter."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from fedft.adapters import AdapterHandle, attach, build_frames
from fedft.errors import FedftError
from fedft.quant import NF4, NF4Weight, QuantisedLinear, ops, select, workspace
from tests.gradients import grad
from tests.quant.test_nf4 import same_bits, weights

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 1e-3}


@pytest.fixture(params=["kernels", "torch"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(select, "cpu", lambda: None)
    elif select.cpu() is None:
        pytest.skip("no compiled kernels on this machine")
    chosen: str = request.param
    return chosen


def layer(rows: int, columns: int, dtype: torch.dtype, bias: bool = True) -> QuantisedLinear:
    dense = nn.Linear(columns, rows, bias=bias, dtype=dtype)
    with torch.no_grad():
        dense.weight.copy_(weights((rows, columns), dtype))
        if bias:
            dense.bias.copy_(weights((rows,), dtype, seed=9))
    return QuantisedLinear.of(dense, NF4)


def adapted(base: QuantisedLinear, rank: int = 4) -> tuple[nn.Sequential, AdapterHandle]:
    model = nn.Sequential(base)
    handle = attach(model, build_frames(model, ["0"], initialiser="random", rank=rank, seed=1))
    for parameter in handle.trainable_parameters():
        parameter.data.copy_(weights(tuple(parameter.shape), torch.float32, seed=2, spread=0.5))
    return model, handle


def stored(module: nn.Module) -> NF4Weight:
    assert isinstance(module, QuantisedLinear)
    assert isinstance(module.stored, NF4Weight)
    return module.stored


def bias_of(module: QuantisedLinear) -> Tensor:
    assert module.bias is not None
    return module.bias


def relative(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(64, 128), (48, 80), (7, 33)])
@pytest.mark.usefixtures("implementation")
def test_forward_and_backward_equal_float64_on_the_same_weight(
    rows: int, columns: int, dtype: torch.dtype
) -> None:
    base = layer(rows, columns, dtype)
    dense = base.stored.dequantise(torch.float64)
    x = weights((3, 5, columns), dtype, seed=3, spread=1.0).requires_grad_()
    g = weights((3, 5, rows), dtype, seed=4, spread=1.0)
    y = base(x)
    y.backward(g)
    assert y.dtype == dtype
    # The arithmetic rounds the dequantised weight to the dtype; the reference does not.
    assert relative(y, x.double() @ dense.T + bias_of(base).double()) < TOLERANCE[dtype]
    assert relative(grad(x), g.double() @ dense) < TOLERANCE[dtype]
    assert same_bits(base.input_gradient(g), grad(x))
    assert relative(base.dense_weight(), dense) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_under_an_adapter(dtype: torch.dtype) -> None:
    base = layer(48, 80, dtype)
    model, handle = adapted(base)
    frame, (R,) = handle.frames["0"], handle.trainable_parameters()
    dense = base.stored.dequantise(torch.float64)
    x = weights((2, 6, 80), dtype, seed=3, spread=1.0).requires_grad_()
    g = weights((2, 6, 48), dtype, seed=4, spread=1.0)
    model(x).backward(g)
    A, B, r, xx, gg = frame.a.double(), frame.b.double(), R.detach().double(), x.detach().double(), g.double()
    assert relative(model(x), xx @ (dense + B @ r @ A).T + bias_of(base).double()) < 2 * TOLERANCE[dtype]
    assert relative(grad(x), gg @ (dense + B @ r @ A)) < 2 * TOLERANCE[dtype]
    assert relative(grad(R), (gg @ B).flatten(0, 1).T @ (xx @ A.T).flatten(0, 1)) < 2 * TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_evaluation_changes_nothing_and_gradients_come_after_it(dtype: torch.dtype) -> None:
    model, handle = adapted(layer(64, 96, dtype))
    x = weights((8, 96), dtype, spread=1.0)
    before, digest = model.train()(x), stored(model.get_submodule("0.base")).digest()
    with torch.no_grad():
        evaluated = model.eval()(x)
    after = model.train()(x)
    after.sum().backward()
    assert same_bits(before, evaluated)
    assert same_bits(before, after)
    assert stored(model.get_submodule("0.base")).digest() == digest
    assert grad(handle.trainable_parameters()[0]).abs().sum() > 0


def test_two_uses_of_the_workspace_do_not_mix() -> None:
    small, large = layer(16, 64, torch.float32), layer(128, 64, torch.float32)
    x = weights((4, 64), torch.float32, spread=1.0).requires_grad_()
    ys, yl = small(x), large(x)
    ys.sum().backward(retain_graph=True)
    first = grad(x).clone()
    yl.sum().backward()
    x.grad = None
    ys.sum().backward()
    assert same_bits(grad(x), first)


def test_the_workspace_is_allocated_once() -> None:
    workspace.release()
    base = layer(64, 128, torch.float32)
    x = weights((4, 128), torch.float32)
    base(x)
    held = workspace.take((64, 128), torch.float32, x.device).data_ptr()
    for _ in range(3):
        base(x)
        base.input_gradient(base(x))
    assert workspace.take((64, 128), torch.float32, x.device).data_ptr() == held
    assert workspace.bytes_held() == 64 * 128 * 4


def test_nothing_but_u_and_the_weight_is_saved() -> None:
    model, handle = adapted(layer(64, 256, torch.bfloat16), rank=8)
    own = {
        t.data_ptr()
        for t in (handle.trainable_parameters()[0], *stored(model.get_submodule("0.base")).state().values())
    }
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    x = weights((32, 256), torch.bfloat16, spread=1.0).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        model(x)
    assert sum(kept.values()) == 32 * 8 * 2  # u in bfloat16


def test_checkpointing() -> None:
    model, handle = adapted(layer(64, 96, torch.float32))
    (R,) = handle.trainable_parameters()
    x = weights((8, 96), torch.float32, spread=1.0).requires_grad_()
    model(x).square().sum().backward()
    expected, R.grad, x.grad = (grad(R), grad(x)), None, None
    checkpoint(model, x, use_reentrant=False).square().sum().backward()
    assert same_bits(grad(R), expected[0])
    assert same_bits(grad(x), expected[1])


def test_compiled_whole() -> None:
    model, handle = adapted(layer(64, 96, torch.float32))
    (R,) = handle.trainable_parameters()
    x = weights((8, 96), torch.float32, spread=1.0).requires_grad_()
    model(x).square().sum().backward()
    expected, R.grad, x.grad = (grad(R), grad(x)), None, None
    torch.compile(model, backend="aot_eager", fullgraph=True)(x).square().sum().backward()
    torch.testing.assert_close(R.grad, expected[0])
    torch.testing.assert_close(x.grad, expected[1])


def test_gradcheck_and_opcheck() -> None:
    own = NF4Weight.quantise(weights((12, 20), torch.float32))
    parts = (own.packed, own.absmax, own.absmax2, own.code, own.offset)
    x = torch.randn(3, 2, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bias = torch.ones(12, dtype=torch.float64)

    def forward(x: Tensor) -> Tensor:
        return own.matmul(x, transposed=True, bias=bias)

    assert torch.autograd.gradcheck(forward, (x.requires_grad_(),))
    assert torch.autograd.gradgradcheck(forward, (x,))
    torch.library.opcheck(ops.matmul, (x.detach().float().requires_grad_(), *parts, 12, 20, None, True))
    torch.library.opcheck(ops.dequantise, (*parts, [12, 20], torch.bfloat16))
    torch.library.opcheck(ops.quantise, (torch.randn(12, 20),))
    torch.library.opcheck(ops.nest, (torch.rand(300), own.code))


@pytest.mark.usefixtures("implementation")
def test_odd_inputs() -> None:
    base = layer(48, 80, torch.float32)
    x = weights((80, 10), torch.float32, spread=1.0)
    assert same_bits(base(x.T), base(x.T.contiguous()))
    padded = weights((10, 81), torch.float32, spread=1.0)[:, 1:]  # an offset into its storage
    assert same_bits(base(padded), base(padded.clone()))
    assert base(torch.zeros(0, 80)).shape == (0, 48)
    assert base.input_gradient(torch.zeros(2, 0, 48)).shape == (2, 0, 80)


def test_moving_the_model_changes_the_compute_dtype_only() -> None:
    base = layer(16, 64, torch.float32)
    before = stored(base).digest()
    moved = copy.deepcopy(base).to(torch.bfloat16)
    assert (moved.compute_dtype, stored(moved).digest(), bias_of(moved).dtype) == (
        torch.bfloat16,
        before,
        torch.bfloat16,
    )
    assert moved.dense_weight().dtype == torch.bfloat16
    assert base.to("cpu").compute_dtype == torch.float32


def test_state_dict_round_trip() -> None:
    source, target = layer(16, 64, torch.float32), layer(16, 64, torch.float32)
    target.stored = NF4Weight.quantise(torch.ones(16, 64))
    names = set(source.state_dict())
    assert {"weight", "weight.absmax", "weight.quant_state.bitsandbytes__nf4", "bias"} <= names
    target.load_state_dict(source.state_dict())
    assert stored(target).digest() == stored(source).digest()
    with pytest.raises(RuntimeError, match="weight"):
        layer(16, 128, torch.float32).load_state_dict(source.state_dict())
    with pytest.raises(RuntimeError, match="Missing"):
        target.load_state_dict({"bias": source.bias})


def test_conv1d_and_other_modules() -> None:
    conv = Conv1D(24, 40)
    base = QuantisedLinear.of(conv, NF4)
    assert stored(base).digest() == NF4Weight.quantise(conv.weight.T).digest()
    assert base(torch.zeros(2, 40)).shape == (2, 24)
    with pytest.raises(FedftError, match="FEDFT-9013"):
        QuantisedLinear.of(nn.LayerNorm(4), NF4)
