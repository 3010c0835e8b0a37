import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from transformers import PreTrainedModel

from fedft.errors import FedftError
from fedft.privacy.mechanisms.clipping import LocalCounts
from fedft.privacy.mechanisms.dp_sgd import DpSgd
from fedft.privacy.mechanisms.noise import NoiseSource
from tests.privacy.models import KINDS, Loss, adapted_model, make_batch, one_at_a_time, per_sample_loss
from tests.privacy.sources import NoNoise

Batch = Mapping[str, Tensor]


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _flat(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in _trainable(model)]).clone()


def _dp(model: nn.Module, *, noise: NoiseSource | None = None, clip: float = 0.5, **changes: Any) -> DpSgd:
    settings: dict[str, Any] = {
        "max_grad_norm": clip,
        "noise_multiplier": 1.0,
        "expected_batch": 4.0,
        "noise": noise,
    }
    optimizer = torch.optim.SGD(_trainable(model), lr=1.0)
    return DpSgd(model, optimizer, per_sample_loss, **{**settings, **changes})


def _step(model: nn.Module, *batches: Batch, **options: Any) -> Tensor:
    """The step that SGD at rate 1 takes, which is the gradient that it was given."""
    before = _flat(model)
    with _dp(model, **options) as private:
        for batch in batches:
            private.accumulate(batch)
        private.step()
    return before - _flat(model)


def _part(batch: Batch, *indices: int) -> Batch:
    return {name: tensor[list(indices)] for name, tensor in batch.items()}


def _clipped(rows: Tensor, bound: float) -> Tensor:
    factors: Tensor = bound / rows.norm(dim=1, keepdim=True)
    return rows * factors.clamp(max=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_the_clipped_mean_of_single_gradients(kind: str) -> None:
    model, batch = adapted_model(kind), make_batch(kind)
    rows = one_at_a_time(model, batch)
    clip = float(rows.norm(dim=1).median())

    taken = _step(model, batch, noise=NoNoise(), clip=clip)

    torch.testing.assert_close(taken, _clipped(rows, clip).sum(0) / 4, rtol=1e-4, atol=2e-5 * clip)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_virtual_batches_and_checkpointing_change_nothing(checkpointing: bool) -> None:
    batch = make_batch("llama")
    whole = _step(adapted_model("llama"), batch, noise=NoNoise())

    model = adapted_model("llama", checkpointing=checkpointing)
    parts = _step(model, _part(batch, 0, 1, 2), _part(batch, 3), noise=NoNoise())

    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_one_sample_of_any_length_moves_a_step_by_at_most_the_bound(kind: str) -> None:
    batch = make_batch(kind, samples=6)

    for left_out in range(6):
        rest = _part(batch, *(i for i in range(6) if i != left_out))
        moved = _step(adapted_model(kind), batch, noise=NoNoise()) - _step(
            adapted_model(kind), rest, noise=NoNoise()
        )
        assert moved.norm() * 4 <= 0.5 * (1 + 1e-4)


@pytest.mark.parametrize("batches", [[], [_part(make_batch("bert"))]], ids=["no batch", "empty batch"])
def test_an_empty_poisson_batch_is_noise_alone(batches: list[Batch]) -> None:
    draws = torch.cat([_step(adapted_model("bert"), *batches, clip=0.5) for _ in range(20)])

    assert stats.kstest((draws / (0.5 / 4)).numpy(), "norm").pvalue > 1e-6


def test_noise_has_the_scale_that_was_asked_and_is_added_once() -> None:
    batch = make_batch("bert")
    plain = _step(adapted_model("bert"), batch, noise=NoNoise())
    draws = [
        _step(adapted_model("bert"), _part(batch, 0, 1), _part(batch, 2, 3), noise_multiplier=2.0) - plain
        for _ in range(12)
    ]

    assert stats.kstest((torch.cat(draws) / (2.0 * 0.5 / 4)).numpy(), "norm").pvalue > 1e-6


def test_global_seeds_do_not_reach_the_noise() -> None:
    steps = []
    for _ in range(2):
        torch.manual_seed(42)
        steps.append(_step(adapted_model("bert")))

    first, second = steps
    assert not torch.isclose(first, second).any()


def test_a_sample_without_a_finite_gradient_counts_as_zero() -> None:
    batch = make_batch("bert", samples=5)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        broken = torch.where(batch["broken"], math.inf, 1.0)
        return per_sample_loss(model, batch) * broken

    broken = {**batch, "broken": torch.tensor([False, False, False, True, False])}
    model, before = adapted_model("bert"), _flat(adapted_model("bert"))
    private = DpSgd(
        model,
        torch.optim.SGD(_trainable(model), lr=1.0),
        loss,
        max_grad_norm=0.5,
        noise_multiplier=1.0,
        expected_batch=4.0,
        noise=NoNoise(),
    )
    with private:
        private.accumulate(broken)
        private.step()

    expected = _step(adapted_model("bert"), _part(batch, 0, 1, 2, 4), noise=NoNoise())
    torch.testing.assert_close(before - _flat(model), expected, rtol=1e-4, atol=1e-6)
    assert private.local_counts == LocalCounts(units=5, clipped=4, non_finite=1)


def test_adamw_steps_on_the_noised_gradient_and_nothing_is_left_behind() -> None:
    model, batch = adapted_model("bert"), make_batch("bert")
    optimizer = torch.optim.AdamW(_trainable(model), lr=1e-3, weight_decay=0.0)
    before = _flat(model)
    with DpSgd(
        model, optimizer, per_sample_loss, max_grad_norm=0.5, noise_multiplier=1.0, expected_batch=4.0
    ) as private:
        for _ in range(2):
            private.accumulate(batch)
            private.step()

    assert (before - _flat(model)).abs().max() <= 2.01e-3
    assert (before != _flat(model)).all()
    assert all(parameter.grad is None for parameter in model.parameters())
    per_sample_loss(model, batch).sum().backward()
    assert all(parameter.grad is not None for parameter in _trainable(model))


def test_dropout_may_stay_on_while_training() -> None:
    model = adapted_model("bert").train()

    _step(model, make_batch("bert"))

    assert model.training
    assert model.dropout.training


def test_a_bfloat16_base_is_refused() -> None:
    model = adapted_model("llama")
    model.to(torch.bfloat16)
    for parameter in _trainable(model):
        parameter.data = parameter.data.float()

    with pytest.raises(FedftError, match=r"FEDFT-8410.*bfloat16"):
        _step(model, make_batch("llama"))


def test_float32_of_less_than_its_precision_is_refused() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(FedftError, match="FEDFT-8410"):
            _step(adapted_model("llama"), make_batch("llama"))
    finally:
        torch.set_float32_matmul_precision("highest")


def _longer(batch: Batch, length: int) -> Batch:
    """The batch with one more sample, to whose length all others are padded."""
    samples, old = batch["input_ids"].shape
    generator = torch.Generator().manual_seed(3)
    found = {}
    for name, fill in (("input_ids", 0), ("attention_mask", 0), ("labels", -100)):
        found[name] = torch.full((samples + 1, length), fill)
        found[name][:samples, :old] = batch[name]
    tokens = torch.randint(64, (length,), generator=generator)
    found["input_ids"][samples], found["labels"][samples], found["attention_mask"][samples] = (
        tokens,
        tokens,
        1,
    )
    return found


def _moved_by_a_longer_sample(dtype: torch.dtype) -> float:
    """How far one longer sample moves the sum, in bounds, with weights large enough for rounding to show."""
    model = adapted_model("llama")
    for name, parameter in model.named_parameters():
        if "proj" in name and not parameter.requires_grad:
            parameter.data *= 12
    model.to(dtype)
    for parameter in _trainable(model):
        parameter.data = parameter.data.float()
    batch = make_batch("llama", samples=64)
    steps = []
    for each in (batch, _longer(batch, 96)):
        with _dp(model, noise=NoNoise(), expected_batch=1.0, clip=1e-4) as private:
            private._checked = True
            before = _flat(model)
            private.accumulate(each)
            private.step()
        steps.append(before - _flat(model))
        with torch.no_grad():
            for parameter, old in zip(_trainable(model), _split(before, model), strict=True):
                parameter.copy_(old)
    return float((steps[1] - steps[0]).norm()) / 1e-4


def _split(flat: Tensor, model: nn.Module) -> list[Tensor]:
    sizes = [parameter.numel() for parameter in _trainable(model)]
    return [part.view_as(p) for part, p in zip(flat.split(sizes), _trainable(model), strict=True)]


def test_one_longer_sample_moves_a_float32_step_by_its_bound_and_a_narrower_one_by_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _moved_by_a_longer_sample(torch.float32) <= 1 + 1e-4
    monkeypatch.setattr("fedft.privacy.mechanisms.dp_sgd.refuse_narrow_arithmetic", lambda _model: None)
    assert _moved_by_a_longer_sample(torch.bfloat16) > 1 + 1e-3


def test_the_first_batch_is_counted_once_in_spite_of_the_checks() -> None:
    batch = make_batch("bert")
    model = adapted_model("bert")
    with _dp(model, noise=NoNoise()) as private:
        private.accumulate(batch)
        assert private.local_counts.units == 4


def test_made_up_samples_can_be_checked_in_place_of_private_ones() -> None:
    model, seen = adapted_model("bert"), []

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        seen.append(len(batch["labels"]))
        return per_sample_loss(model, batch)

    with _dp(model) as private:
        private._loss = loss
        private.check(make_batch("bert", seed=9))
        checks = len(seen)
        private.accumulate(make_batch("bert"))

    assert checks > 1
    assert len(seen) == checks + 1


def _refused(loss: Loss, batch: Batch, kind: str = "llama") -> str:
    model = adapted_model(kind)
    before = _flat(model)
    with _dp(model) as private:
        private._loss = loss
        with pytest.raises(FedftError) as caught:
            private.accumulate(batch)
    assert torch.equal(before, _flat(model))
    return caught.value.code


LLAMA = make_batch("llama")


def test_the_librarys_mean_loss_is_refused() -> None:
    assert _refused(lambda model, batch: model(**batch).loss, LLAMA) == "FEDFT-8403"


@pytest.mark.parametrize(
    "loss",
    [
        lambda model, batch: per_sample_loss(model, batch)[:, None],
        lambda model, batch: per_sample_loss(model, batch).detach(),
        lambda model, batch: per_sample_loss(model, batch).tolist(),
        lambda model, batch: per_sample_loss(model, batch)[1:],
    ],
)
def test_other_shapes_of_loss_are_refused(loss: Loss) -> None:
    assert _refused(loss, LLAMA) == "FEDFT-8403"


def _token_mean(model: nn.Module, batch: Batch) -> Tensor:
    """Sums to the library's mean over all tokens: one value a sample, but not a function of one sample."""
    counts = (batch["labels"][:, 1:] != -100).sum(1)
    return per_sample_loss(model, batch) * counts / counts.sum() * len(counts)


def _batch_mean(model: nn.Module, batch: Batch) -> Tensor:
    losses = per_sample_loss(model, batch)
    return losses.mean().expand_as(losses)


def _centred(model: nn.Module, batch: Batch) -> Tensor:
    losses = per_sample_loss(model, batch)
    return losses * (losses / losses.mean()).detach()


@pytest.mark.parametrize("loss", [_token_mean, _batch_mean, _centred])
@pytest.mark.parametrize("padded", [False, True])
def test_losses_that_mix_samples_are_refused(loss: Loss, padded: bool) -> None:
    assert _refused(loss, make_batch("llama", padded=padded)) == "FEDFT-8404"


def test_a_mixing_loss_is_found_from_a_single_sample_too() -> None:
    assert _refused(_token_mean, _part(LLAMA, 0)) == "FEDFT-8404"


def test_a_penalty_on_parameters_is_refused() -> None:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return per_sample_loss(model, batch) + 1e-4 * model.get_parameter("score.weight").pow(2).sum()

    assert _refused(loss, make_batch("llama-classifier"), "llama-classifier") == "FEDFT-8404"


def test_a_layer_used_twice_is_refused() -> None:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return per_sample_loss(model, batch) + per_sample_loss(model, batch)

    assert _refused(loss, LLAMA) == "FEDFT-8402"


def test_a_head_used_past_its_forward_is_refused() -> None:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, PreTrainedModel)
        hidden = model.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        logits = nn.functional.linear(hidden.last_hidden_state[:, 0], model.score.weight)
        return nn.functional.cross_entropy(logits, batch["labels"], reduction="none")

    assert _refused(loss, make_batch("llama-classifier"), "llama-classifier") == "FEDFT-8404"


def test_checks_apply_to_every_batch_and_not_to_the_first_alone() -> None:
    model = adapted_model("llama")
    with _dp(model) as private:
        private.accumulate(LLAMA)
        private._loss = lambda model, batch: per_sample_loss(model, batch).mean()
        with pytest.raises(FedftError, match="FEDFT-8403"):
            private.accumulate(LLAMA)


def test_tensors_of_different_lengths_are_refused() -> None:
    assert _refused(per_sample_loss, {**LLAMA, "labels": LLAMA["labels"][:2]}) == "FEDFT-8408"


def _refused_at_once(model: nn.Module, parameters: list[nn.Parameter]) -> str:
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    with pytest.raises(FedftError) as caught:
        DpSgd(model, optimizer, per_sample_loss, max_grad_norm=1, noise_multiplier=1, expected_batch=4)
    return caught.value.code


def test_an_optimiser_of_other_parameters_is_refused() -> None:
    model = adapted_model("bert")
    extra = nn.Parameter(torch.zeros(3))

    assert _refused_at_once(model, _trainable(model)[1:]) == "FEDFT-8406"
    assert _refused_at_once(model, [*_trainable(model), extra]) == "FEDFT-8406"


def test_an_uncovered_parameter_is_refused() -> None:
    model = adapted_model("bert")
    model.bert.embeddings.LayerNorm.weight.requires_grad_(True)

    assert _refused_at_once(model, _trainable(model)) == "FEDFT-8401"
