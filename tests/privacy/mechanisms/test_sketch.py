from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from fedft.errors import FedftError
from fedft.privacy.mechanisms.gaussian import GaussianMechanism
from fedft.privacy.mechanisms.sketch import SketchPlan, frames_from_sketch, private_sketch
from tests.privacy.models import Loss, make_batch, per_sample_loss, plain_model
from tests.privacy.sources import NoNoise

TARGETS = {
    "bert": ["bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.1.output.dense"],
    "gpt2": ["transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_proj"],
    "llama": ["model.layers.0.self_attn.k_proj", "model.layers.1.mlp.down_proj"],
}
WIDTH = 6


def _shape(module: nn.Module) -> tuple[int, int]:
    rows, columns = module.get_parameter("weight").shape
    return (rows, columns) if isinstance(module, nn.Linear) else (columns, rows)


def _plan(model: nn.Module, kind: str, width: int = WIDTH) -> SketchPlan:
    return SketchPlan.random(
        {name: _shape(model.get_submodule(name)) for name in TARGETS[kind]}, width, seed=3
    )


def _mechanism(plan: SketchPlan, *, clip: float = 1e6, denominator: float = 1.0) -> GaussianMechanism:
    return GaussianMechanism(
        plan.dimension, max_norm=clip, noise_multiplier=1e-9, denominator=denominator, noise=NoNoise()
    )


def _weight_gradients(model: nn.Module, kind: str, batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Dense (out, in) gradients by autograd, one sample at a time."""
    weights = [model.get_parameter(f"{name}.weight") for name in TARGETS[kind]]
    samples = []
    for i in range(len(batch["labels"])):
        alone = {name: tensor[i : i + 1] for name, tensor in batch.items()}
        found = torch.autograd.grad(per_sample_loss(model, alone).sum(), weights)
        dense = [
            gradient if isinstance(model.get_submodule(name), nn.Linear) else gradient.T
            for name, gradient in zip(TARGETS[kind], found, strict=True)
        ]
        samples.append(dict(zip(TARGETS[kind], dense, strict=True)))
    return samples


def _expected_rows(plan: SketchPlan, samples: list[dict[str, Tensor]]) -> Tensor:
    rows = []
    for gradients in samples:
        parts = []
        for name, probe in plan.probes.items():
            parts += [(gradients[name] @ probe.right).flatten(), (probe.left @ gradients[name]).flatten()]
        rows.append(torch.cat(parts))
    return torch.stack(rows)


@pytest.mark.parametrize("kind", TARGETS)
def test_a_sketch_is_the_clipped_mean_of_single_sketches(kind: str) -> None:
    model, batch = plain_model(kind).eval(), make_batch(kind)
    plan = _plan(model, kind)
    rows = _expected_rows(plan, _weight_gradients(model, kind, batch))
    clip = float(rows.norm(dim=1).median())
    parts = [{n: t[:1] for n, t in batch.items()}, {n: t[1:] for n, t in batch.items()}]

    flat = private_sketch(
        model, per_sample_loss, parts, plan, _mechanism(plan, clip=clip, denominator=4.0), probe=batch
    )

    expected = (rows * (clip / rows.norm(dim=1, keepdim=True)).clamp(max=1)).sum(0) / 4
    torch.testing.assert_close(flat, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_both_sides_of_every_layer_are_clipped_together() -> None:
    model, batch = plain_model("bert").eval(), make_batch("bert", samples=1)
    plan = _plan(model, "bert")

    flat = private_sketch(model, per_sample_loss, [batch], plan, _mechanism(plan, clip=1e-3), probe=batch)

    assert float(flat.norm()) == pytest.approx(1e-3, rel=1e-4)


def test_probes_keep_the_expected_norm_on_both_sides() -> None:
    plan = SketchPlan.random({"a": (300, 200)}, 100, seed=0)
    gradient = torch.randn(300, 200, generator=torch.Generator().manual_seed(0))
    probe = plan.probes["a"]

    for side in (gradient @ probe.right, probe.left @ gradient):
        assert float(side.norm() / gradient.norm()) == pytest.approx(1.0, abs=0.05)


def test_probes_come_from_the_public_seed_whatever_the_order_of_the_layers() -> None:
    one = SketchPlan.random({"a": (9, 8), "b": (7, 9)}, 4, seed=5)
    other = SketchPlan.random({"b": (7, 9), "a": (9, 8)}, 4, seed=5)

    for name in "ab":
        assert all(torch.equal(x, y) for x, y in zip(one.probes[name], other.probes[name], strict=True))
    assert not torch.equal(
        one.probes["a"].right, SketchPlan.random({"a": (9, 8)}, 4, seed=6).probes["a"].right
    )


def _low_rank_sum(plan: SketchPlan, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """A flat sketch of one gradient of rank `rank` beside weak full-rank noise; its row and column spaces."""
    generator = torch.Generator().manual_seed(1)
    left = torch.linalg.qr(torch.randn(60, rank, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(50, rank, generator=generator)).Q
    gradient = left @ right.T + 0.002 * torch.randn(60, 50, generator=generator)
    probe = plan.probes["a"]
    flat = torch.cat([(gradient @ probe.right).flatten(), (probe.left @ gradient).flatten()])
    return flat, left, right


def test_frames_span_the_leading_spaces_of_the_gradient() -> None:
    plan = SketchPlan.random({"a": (60, 50)}, 9, seed=0)
    flat, left, right = _low_rank_sum(plan, rank=5)

    b, a = frames_from_sketch(plan, flat, rank=5)["a"]

    assert (b.shape, a.shape, b.dtype) == ((60, 5), (5, 50), torch.float32)
    torch.testing.assert_close(b.T @ b, torch.eye(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(a @ a.T, torch.eye(5), atol=1e-6, rtol=0)
    assert float((b.T @ left).norm() ** 2 / 5) > 0.99
    assert float((a @ right).norm() ** 2 / 5) > 0.99


def test_frames_do_not_depend_on_the_scale_of_the_sum() -> None:
    plan = SketchPlan.random({"a": (60, 50)}, 9, seed=0)
    flat, _, _ = _low_rank_sum(plan, rank=5)

    for one, other in zip(
        frames_from_sketch(plan, flat, 5)["a"], frames_from_sketch(plan, flat * 0.125, 5)["a"], strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_nothing_drawn_is_noise_alone() -> None:
    model = plain_model("bert")
    plan = _plan(model, "bert")
    mechanism = GaussianMechanism(plan.dimension, max_norm=1.0, noise_multiplier=2.0, denominator=1.0)

    flat = private_sketch(model, per_sample_loss, [], plan, mechanism, probe=make_batch("bert"))

    assert float(flat.std()) == pytest.approx(2.0, rel=0.1)


def test_the_model_is_as_it_was_afterwards() -> None:
    model, batch = plain_model("bert").train(), make_batch("bert")
    model.get_submodule("bert.embeddings").eval()
    plan = _plan(model, "bert")
    private_sketch(model, per_sample_loss, [batch], plan, _mechanism(plan), probe=batch)

    assert model.training
    assert not model.get_submodule("bert.embeddings").training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def _refused(model: nn.Module, loss: Loss, batch: dict[str, Tensor], plan: SketchPlan) -> str:
    with pytest.raises(FedftError) as caught:
        private_sketch(model, loss, [batch], plan, _mechanism(plan), probe=batch)
    assert not any(module._forward_hooks for module in model.modules())
    return caught.value.code


def test_private_samples_are_looked_at_once_and_only_after_the_checks() -> None:
    """Whether a check passes on private samples would be told by its refusal."""
    model, made_up, private = plain_model("llama"), make_batch("llama"), make_batch("llama", samples=6)
    seen: list[int] = []

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        seen.append(len(batch["labels"]))
        mixed = per_sample_loss(model, batch)  # passes on three samples and fails on six
        return mixed if len(mixed) <= 3 else mixed + mixed.flip(0)

    plan = _plan(model, "llama")
    private_sketch(model, loss, [private], plan, _mechanism(plan), probe=made_up)

    assert seen.count(6) == 1
    assert seen[-1] == 6


def test_losses_that_mix_samples_are_refused() -> None:
    model, batch = plain_model("llama"), make_batch("llama")
    plan = _plan(model, "llama")

    def token_mean(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        counts = (batch["labels"][:, 1:] != -100).sum(1)
        return per_sample_loss(model, batch) * counts / counts.sum()

    assert _refused(model, token_mean, batch, plan) == "FEDFT-8404"
    assert _refused(model, lambda m, b: per_sample_loss(m, b).mean(), batch, plan) == "FEDFT-8403"


def test_a_layer_that_is_not_used_is_refused() -> None:
    model = plain_model("bert")
    model.idle = nn.Linear(32, 32)
    plan = SketchPlan.random({"idle": (32, 32), TARGETS["bert"][0]: (32, 32)}, 4, seed=0)

    assert _refused(model, per_sample_loss, make_batch("bert"), plan) == "FEDFT-8602"


def test_batch_normalisation_is_refused() -> None:
    model = plain_model("bert")
    model.norm = nn.BatchNorm1d(3)

    assert _refused(model, per_sample_loss, make_batch("bert"), _plan(model, "bert")) == "FEDFT-8405"


def test_a_mechanism_of_another_dimension_is_refused() -> None:
    model = plain_model("bert")
    plan = _plan(model, "bert")

    batch = make_batch("bert")
    with pytest.raises(FedftError, match="FEDFT-8505"):
        private_sketch(
            model, per_sample_loss, [batch], plan, _mechanism(_plan(model, "bert", 5)), probe=batch
        )


def test_a_layer_that_sees_another_batch_size_is_refused() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.inner(x.flatten(0, 1))
            return y.view(x.shape).sum((1, 2))

    plan = SketchPlan.random({"inner": (4, 4)}, 2, seed=0)

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        losses: Tensor = model(batch["x"])
        return losses

    assert _refused(Flat(), loss, {"x": torch.ones(3, 5, 4)}, plan) == "FEDFT-8408"


@pytest.mark.parametrize("width", [0, 9])
def test_a_width_that_does_not_fit_is_refused(width: int) -> None:
    with pytest.raises(FedftError) as caught:
        SketchPlan.random({"a": (8, 30)}, width, seed=0)
    assert caught.value.code == "FEDFT-8601"


def test_a_rank_above_the_width_is_refused() -> None:
    plan = SketchPlan.random({"a": (60, 50)}, 4, seed=0)

    with pytest.raises(FedftError) as caught:
        frames_from_sketch(plan, torch.ones(plan.dimension), rank=5)
    assert caught.value.code == "FEDFT-8601"
