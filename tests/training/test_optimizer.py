"""Optimisers against the formulas that they are published with."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fedft.config.schema import TrainingSection
from fedft.errors import FedftError
from fedft.registries import OPTIMIZERS
from fedft.training.loop import make_optimizer, train_local

STEPS, RATE = 6, 0.1


def gradients(noise: float = 0.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    signal = torch.linspace(-1, 1, 8, dtype=torch.float64)
    return [signal + noise * torch.randn(8, generator=generator, dtype=torch.float64) for _ in range(STEPS)]


def stepped(given: list[torch.Tensor], noise: float = 0.0, **section: Any) -> torch.Tensor:
    parameter = torch.nn.Parameter(torch.zeros_like(given[0]))
    settings = TrainingSection(learning_rate=RATE, **section)
    optimizer = make_optimizer(settings, [parameter], [], (noise, 0.0))
    for gradient in given:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def test_sgd_has_heavy_ball_momentum() -> None:
    found = stepped(gradients(), optimizer="sgd", momentum=0.7)
    expected, velocity = torch.zeros(8, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
    for gradient in gradients():
        velocity = 0.7 * velocity + gradient
        expected -= RATE * velocity
    torch.testing.assert_close(found, expected)


def test_corrected_adam_takes_the_variance_of_the_noise_off_the_second_moment() -> None:
    """Algorithm 1 of arXiv 2312.14334, written out."""
    noise, beta1, beta2, floor = 0.5, 0.8, 0.9, 0.3
    given = gradients(noise)
    found = stepped(given, noise, optimizer="adam-corrected", beta1=beta1, beta2=beta2, floor=floor)
    first = second = expected = torch.zeros(8, dtype=torch.float64)
    bounded = 0
    for step, gradient in enumerate(given, start=1):
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        corrected = second / (1 - beta2**step) - noise**2
        bounded += int((corrected < floor**2).sum())
        divisor = torch.sqrt(torch.clamp(corrected, min=floor**2))
        expected = expected - RATE * first / (1 - beta1**step) / divisor
    torch.testing.assert_close(found, expected)
    assert 0 < bounded < 8 * STEPS


def test_without_noise_corrected_adam_is_adam() -> None:
    found = stepped(gradients(), optimizer="adam-corrected", floor=1e-9, weight_decay=0.3)
    torch.testing.assert_close(
        found, stepped(gradients(), optimizer="adamw", weight_decay=0.3), rtol=1e-5, atol=0
    )


def test_corrected_adam_finds_the_signal_that_adam_loses_in_the_noise() -> None:
    """Entries of unlike gradients step alike once v̂ is g² again; under noise Adam's do not."""
    generator = torch.Generator().manual_seed(1)
    signal, noise = torch.tensor([0.5, 2.0], dtype=torch.float64), 1.0
    given = [signal + noise * torch.randn(2, generator=generator, dtype=torch.float64) for _ in range(4000)]
    moments: dict[str, Any] = {"beta1": 0.99, "beta2": 0.9995}
    adam = stepped(given, noise, optimizer="adamw", **moments)
    corrected = stepped(given, noise, optimizer="adam-corrected", floor=0.2, **moments)
    assert float(adam[0] / adam[1]) == pytest.approx(0.5, abs=0.05)
    assert float(corrected[0] / corrected[1]) > 0.9


def test_every_optimizer_is_in_one_registry() -> None:
    assert OPTIMIZERS.built_in == ("adamw", "adamw8bit", "paged-adamw8bit", "sgd", "adam-corrected")
    with pytest.raises(ValueError, match="Input should be 'adamw'"):
        TrainingSection(optimizer="adagrad")
    with pytest.raises(ValueError, match="momentum"):
        TrainingSection(optimizer="adamw", momentum=0.9)


@pytest.mark.parametrize("name", ["adamw8bit", "paged-adamw8bit"])
def test_eight_bits_are_refused_without_cuda(name: str) -> None:
    layer, samples, section = torch.nn.Linear(2, 2), [object()], TrainingSection(optimizer=name)
    task: Any = None  # not reached

    with pytest.raises(FedftError, match=rf"FEDFT-3032.*{name}.*cpu"):
        train_local(
            layer, task, samples, section, adapters=list(layer.parameters())[:1], generator=torch.Generator()
        )


@pytest.mark.parametrize(
    ("name", "expected"), [("adamw8bit", "AdamW8bit"), ("paged-adamw8bit", "PagedAdamW8bit")]
)
def test_on_cuda_it_is_bitsandbytes_with_the_same_arguments(
    name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def made(groups: Any, **arguments: Any) -> str:
        given.update(arguments, groups=groups)
        return expected

    monkeypatch.setitem(
        sys.modules, "bitsandbytes", SimpleNamespace(optim=SimpleNamespace(**{expected: made}))
    )
    parameter: Any = SimpleNamespace(device=torch.device("cuda"))
    section = TrainingSection(optimizer=name, beta1=0.8, beta2=0.9, weight_decay=0.1)

    found: object = make_optimizer(section, [parameter], [])
    assert found == expected
    assert given == {
        "betas": (0.8, 0.9),
        "weight_decay": 0.1,
        "groups": [{"params": [parameter], "lr": section.learning_rate}],
    }
