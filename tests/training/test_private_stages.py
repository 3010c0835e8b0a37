from __future__ import annotations

import math
from typing import Any

import pytest

from fedft.config import RunConfig
from fedft.privacy.accounting.accountants import pld_epsilon
from fedft.training.private_schedule import (
    private_head_of,
    private_round,
    private_rounds,
    spent_before,
)
from fedft.training.stages import Stage, measures_center, stage_of

EXAMPLES = 2000


def config(initialiser: str = "random", epsilon: float = 2.0, **head: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "task": {"kind": "sequence-classification", "labels": ["a", "b"]},
            "adapter": {"initialiser": initialiser},
            "training": {"steps": 4, "batch_size": 200},
            "rounds": {"total": 6, "weighting": "uniform"},
            "head": {"rounds": 3, "steps": 10, **head},
            "privacy": {"mechanism": "example", "epsilon": epsilon, "delta": 1e-5},
        }
    )


def test_the_head_comes_first_and_its_features_mean_before_it() -> None:
    stages = [stage_of(config(), number) for number in range(1, 7)]
    assert stages == [Stage.CENTER, Stage.HEAD, Stage.HEAD, Stage.ALL, Stage.ALL, Stage.ALL]
    assert stage_of(config(center_share=0.0), 1) is Stage.HEAD
    assert not measures_center(config("lora-sb"))
    assert stage_of(config("lora-sb"), 1) is Stage.HEAD


@pytest.mark.parametrize("epsilon", [0.5, 3.0, 8.0])
def test_all_stages_together_stay_within_epsilon_and_use_it(epsilon: float) -> None:
    run = config(epsilon=epsilon, share=0.4)
    head = list(private_head_of(run, EXAMPLES).values())
    before = [rounds.run_event() for rounds in head]
    assert 0.97 * 0.4 * epsilon < pld_epsilon(before, 1e-5) <= 0.4 * epsilon
    whole = [*before, private_rounds(run, EXAMPLES).run_event()]
    assert 0.97 * epsilon < pld_epsilon(whole, 1e-5) <= epsilon


def test_the_rounds_of_a_run_add_up_to_what_the_stages_were_planned_for() -> None:
    run = config()
    events = [private_round(run, EXAMPLES, number).event() for number in range(1, 7)]
    planned = [*spent_before(run, EXAMPLES), private_rounds(run, EXAMPLES).run_event()]
    assert pld_epsilon(events, 1e-5) == pytest.approx(pld_epsilon(planned, 1e-5), abs=1e-9)


def test_a_run_of_the_head_alone_gets_the_whole_budget() -> None:
    run = config(rounds=6, share=0.1)
    stages = private_head_of(run, EXAMPLES)
    spent = pld_epsilon([rounds.run_event() for rounds in stages.values()], 1e-5)
    assert 1.97 < spent <= 2.0
    assert stages[Stage.HEAD].rounds == 5


def test_the_mean_of_the_features_gets_its_share_of_the_precision() -> None:
    stages = private_head_of(config(center_share=0.2), EXAMPLES)
    precision = {stage: r.run_event().steps / r.noise_multiplier**2 for stage, r in stages.items()}
    assert precision[Stage.CENTER] / sum(precision.values()) == pytest.approx(0.2)


def test_spare_rounds_are_paid_for_in_every_stage() -> None:
    run = config()
    spare = run.model_copy(update={"privacy": run.privacy.model_copy(update={"spare_rounds": 2})})
    for stage, rounds in private_head_of(spare, EXAMPLES).items():
        plain = private_head_of(run, EXAMPLES)[stage]
        assert rounds.rounds == plain.rounds + 2
        ratio = math.sqrt(rounds.rounds / plain.rounds)
        assert rounds.noise_multiplier / plain.noise_multiplier == pytest.approx(ratio)


def test_left_to_itself_the_head_takes_the_steps_that_records_and_budget_deserve() -> None:
    steps = {epsilon: private_head_of(config(epsilon=epsilon, steps=0), 500) for epsilon in (0.2, 4.0)}
    taken = {epsilon: stages[Stage.HEAD].steps for epsilon, stages in steps.items()}
    assert 5 == taken[0.2] < taken[4.0] < 50
    for epsilon, stages in steps.items():
        spent = pld_epsilon([rounds.run_event() for rounds in stages.values()], 1e-5)
        assert 0.97 * epsilon / 2 < spent <= epsilon / 2
