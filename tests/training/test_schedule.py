from __future__ import annotations

import math

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from fedft.config.schema import TrainingSection
from fedft.training.schedule import local_steps, rate_factor


def library_rates(make: object, warmup: int, total: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer, warmup, total)  # type: ignore[operator]
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "make"),
    [("linear", get_linear_schedule_with_warmup), ("cosine", get_cosine_schedule_with_warmup)],
)
def test_the_fall_is_that_of_transformers(schedule: str, make: object) -> None:
    section = TrainingSection(schedule=schedule, warmup_ratio=0.2)
    expected = library_rates(make, 10, 50)
    found = [rate_factor(section, step, 50) for step in range(50)]
    assert found[10:] == pytest.approx(expected[10:])
    # The rise ends where theirs does, one step earlier: no step is wasted at rate zero.
    assert found[:10] == pytest.approx([*expected[1:10], 1.0])


def test_constant_stays_and_steps_beyond_the_end_do_not_rise() -> None:
    section = TrainingSection(warmup_ratio=0.1)
    assert [rate_factor(section, step, 20) for step in (0, 1, 2, 19, 30)] == [0.5, 1, 1, 1, 1]
    cosine = TrainingSection(schedule="cosine")
    assert rate_factor(cosine, 99, 20) == rate_factor(cosine, 19, 20) > 0
    assert rate_factor(cosine, 10, 20) == pytest.approx(0.5 * (1 + math.cos(math.pi / 2)))


def test_local_steps() -> None:
    assert local_steps(TrainingSection(steps=7), 1000) == 7
    assert local_steps(TrainingSection(epochs=2, batch_size=32), 33) == 3
