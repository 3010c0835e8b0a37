"""Per-sample gradients against autograd, one sample at a time, and against Opacus."""

import copy
from collections.abc import Callable

import pytest
import torch
from opacus import GradSampleModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fedft.adapters import AdaptedLinear
from fedft.errors import FedftError
from fedft.privacy.mechanisms.per_sample import PerSampleGradients
from tests.gradients import grad
from tests.privacy.models import (
    KINDS,
    adapted_layers,
    adapted_model,
    make_batch,
    one_at_a_time,
    per_sample_loss,
    per_sample_rows,
    training_without_dropout,
)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_equal_autograd_one_sample_at_a_time(kind: str, padded: bool, checkpointing: bool) -> None:
    model = adapted_model(kind, checkpointing=checkpointing)
    batch = make_batch(kind, padded=padded)

    expected = one_at_a_time(model, batch)

    torch.testing.assert_close(
        per_sample_rows(model, batch), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max())
    )


class _OpacusAdapter(nn.Module):
    """The adapted layer spelt with plain linear modules, whose gradients Opacus takes by its own hooks."""

    def __init__(self, layer: AdaptedLinear) -> None:
        super().__init__()
        self.base = copy.deepcopy(layer.base)
        self.down, self.core, self.up = (
            nn.Linear(weight.shape[1], weight.shape[0], bias=False) for weight in (layer.A, layer.R, layer.B)
        )
        for linear, weight in ((self.down, layer.A), (self.core, layer.R), (self.up, layer.B)):
            linear.weight.data.copy_(weight.data)
        self.down.requires_grad_(False)
        self.up.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x) + self.up(self.core(self.down(x)))
        return y


def _opacus_twin(model: nn.Module) -> nn.Module:
    twin = copy.deepcopy(model)
    for name, layer in list(twin.named_modules()):
        if isinstance(layer, AdaptedLinear):
            twin.set_submodule(name, _OpacusAdapter(layer))
    return twin


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_equal_opacus(kind: str, padded: bool) -> None:
    model, batch = adapted_model(kind), make_batch(kind, padded=padded)
    twin = _opacus_twin(model)
    training_without_dropout(twin)
    hooked = GradSampleModule(twin, loss_reduction="sum")
    per_sample_loss(hooked, batch).sum().backward()
    theirs = torch.cat([p.grad_sample.flatten(1) for p in hooked.parameters() if p.requires_grad], dim=1)

    ours = per_sample_rows(model, batch)

    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def test_rows_are_laid_out_in_the_order_of_the_parameters() -> None:
    model, batch = adapted_model("bert"), make_batch("bert")
    gradients = PerSampleGradients(model)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}

    assert list(gradients.parameters) == list(trainable)
    assert gradients.dimension == sum(p.numel() for p in trainable.values())

    total = per_sample_rows(model, batch).sum(0)
    gradients.write(total)
    written = [grad(p).clone() for p in trainable.values()]
    model.zero_grad()
    per_sample_loss(model, batch).sum().backward()
    for ours, parameter in zip(written, trainable.values(), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-4, atol=1e-5)


def test_detaching_gives_the_ordinary_backward_pass_back() -> None:
    model, batch = adapted_model("bert"), make_batch("bert")
    per_sample_rows(model, batch)

    per_sample_loss(model, batch).sum().backward()

    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert "forward" not in model.classifier.__dict__


def test_a_parameter_that_is_not_reached_has_a_gradient_of_zero() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "idle": nn.Linear(3, 2)})
    gradients = PerSampleGradients(model)
    gradients.attach()

    rows = gradients.backward(model["used"](torch.ones(4, 3)).sum(1))

    assert rows[:, :8].abs().min() > 0
    assert (rows[:, 8:] == 0).all()


def test_heads_see_all_tokens_of_a_sample() -> None:
    head = nn.Linear(3, 2)
    x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    gradients = PerSampleGradients(head)
    gradients.attach()

    rows = gradients.backward(head(x).pow(2).sum((1, 2)))

    gradients.detach()
    for i in range(4):
        found = torch.autograd.grad(head(x[i]).pow(2).sum(), [head.weight, head.bias])
        torch.testing.assert_close(rows[i], torch.cat([g.flatten() for g in found]))


def test_only_a_trained_bias_is_covered_too() -> None:
    head = nn.Linear(3, 2)
    head.weight.requires_grad_(False)
    gradients = PerSampleGradients(head)
    gradients.attach()

    rows = gradients.backward(head(torch.ones(4, 3)).sum(1))

    torch.testing.assert_close(rows, torch.ones(4, 2))


def _refused(model: nn.Module) -> str:
    with pytest.raises(FedftError) as caught:
        PerSampleGradients(model)
    return caught.value.code


def test_a_trained_parameter_without_a_formula_is_refused() -> None:
    model = adapted_model("llama")
    model.get_parameter("model.norm.weight").requires_grad_(True)

    with pytest.raises(FedftError, match=r"model\.norm\.weight") as caught:
        PerSampleGradients(model)
    assert caught.value.code == "FEDFT-8401"


def test_a_subclass_of_linear_is_not_taken_for_a_linear() -> None:
    class Gated(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.sigmoid(x.sum(-1, keepdim=True))

    assert _refused(nn.Sequential(Gated(3, 2))) == "FEDFT-8401"


def test_nothing_to_train_is_refused() -> None:
    assert _refused(nn.Linear(2, 2).requires_grad_(False)) == "FEDFT-8401"


def test_a_shared_parameter_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight

    assert _refused(model) == "FEDFT-8409"


def test_batch_normalisation_is_refused() -> None:
    assert _refused(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False))) == "FEDFT-8405"


def _backward_refused(model: nn.Module, losses: Callable[[], Tensor]) -> str:
    gradients = PerSampleGradients(model)
    gradients.attach()
    try:
        with pytest.raises(FedftError) as caught:
            gradients.backward(losses())
    finally:
        gradients.detach()
    return caught.value.code


@pytest.mark.parametrize("use", ["adapter", "head"])
def test_a_layer_used_twice_is_refused(use: str) -> None:
    model = adapted_model("bert")
    layer = adapted_layers(model)[0] if use == "adapter" else nn.Linear(32, 32)
    model = layer if use == "adapter" else nn.Sequential(layer)
    x = torch.ones(4, 5, 32)

    assert _backward_refused(model, lambda: model(model(x)).sum((1, 2))) == "FEDFT-8402"


def test_a_layer_used_once_under_a_checkpoint_is_not_taken_for_twice() -> None:
    layer = adapted_layers(adapted_model("bert"))[0]
    gradients = PerSampleGradients(layer)
    gradients.attach()
    x = torch.ones(4, 5, 32, requires_grad=True)

    rows = gradients.backward(checkpoint(layer, x, use_reentrant=False).sum((1, 2)))

    assert rows.abs().sum() > 0


@pytest.mark.parametrize("use", ["adapter", "head"])
def test_a_layer_that_sees_another_batch_size_is_refused(use: str) -> None:
    model = adapted_layers(adapted_model("bert"))[0] if use == "adapter" else nn.Sequential(nn.Linear(32, 32))
    x = torch.ones(4, 5, 32)

    assert _backward_refused(model, lambda: model(x.flatten(0, 1)).view(4, -1).sum(1)) == "FEDFT-8408"


@pytest.mark.parametrize("use", ["adapter", "head"])
def test_a_penalty_on_parameters_is_refused(use: str) -> None:
    model = adapted_layers(adapted_model("bert"))[0] if use == "adapter" else nn.Sequential(nn.Linear(32, 32))
    penalised = next(p for p in model.parameters() if p.requires_grad)
    x = torch.ones(4, 5, 32)

    code = _backward_refused(model, lambda: model(x).sum((1, 2)) + 1e-6 * penalised.pow(2).sum())
    assert code == "FEDFT-8404"


def test_a_backward_pass_from_elsewhere_is_refused() -> None:
    layer = adapted_layers(adapted_model("bert"))[0]
    gradients = PerSampleGradients(layer)
    gradients.attach()

    with pytest.raises(FedftError) as caught:
        layer(torch.ones(4, 5, 32)).sum().backward()
    assert caught.value.code == "FEDFT-8404"
