"""What is proposed is what theory says, and never depends on a record."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from fedft.config import RunConfig, load_config
from fedft.config.load import check, put
from fedft.config.templates import template
from fedft.privacy.accounting.accountants import pld_epsilon
from fedft.privacy.mechanisms.gaussian import GaussianMechanism
from fedft.training.private_schedule import private_head_of, private_rounds
from fedft.training.proposal import PASSES, STEPS, propose
from fedft.training.stages import Stage
from tests.cli.run import fedft, output_json

EXAMPLES = 2000


def configured(template_of: str, **changes: Any) -> RunConfig:
    table = tomllib.loads(template_of)
    for key, value in changes.items():
        put(table, key, value)
    return check(table)


def causal(epsilon: float = 3.0, clients: int = 3) -> RunConfig:
    return RunConfig.model_validate(
        {
            "data": {"partition": {"clients": clients}},
            "rounds": {"weighting": "uniform"},
            "privacy": {"mechanism": "example", "epsilon": epsilon, "delta": 1e-5},
        }
    )


def settled(config: RunConfig, settings: dict[str, Any]) -> RunConfig:
    table = config.model_dump(mode="json")
    for key, value in settings.items():
        put(table, key, value)
    return check(table)


@pytest.mark.parametrize("classes", [2, 7, 80])
def test_a_head_is_proposed_what_a_run_would_take_by_itself(classes: int) -> None:
    labels = [f"class {number}" for number in range(classes)]
    config = configured(template("private"), **{"task.labels": labels})
    proposed = propose(config, examples=EXAMPLES, parameters=0)
    plan = private_head_of(config, EXAMPLES)[Stage.HEAD]
    written = private_head_of(settled(config, proposed.settings), EXAMPLES)[Stage.HEAD]
    assert (written.steps, written.rounds, written.noise_multiplier) == (
        plan.steps,
        plan.rounds,
        plan.noise_multiplier,
    )
    assert proposed.noise == pytest.approx(0.5 * math.sqrt(math.log2(classes)))


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_adapters_are_proposed_a_rate_at_which_the_noise_ends_where_it_may(epsilon: float) -> None:
    config = causal(epsilon)
    proposed = propose(config, examples=EXAMPLES, parameters=500)
    run = settled(config, proposed.settings)
    plan = private_rounds(run, EXAMPLES)
    assert run.training.batch_size * run.training.steps * run.rounds.total == PASSES * EXAMPLES
    assert plan.steps * plan.rounds == STEPS
    assert 0.97 * epsilon < pld_epsilon([plan.run_event()], 1e-5) <= epsilon
    clients = []
    for _ in range(config.data.partition.clients):
        mechanism = GaussianMechanism(
            500, max_norm=1.0, noise_multiplier=plan.noise_multiplier, denominator=plan.sampler.expected_batch
        )
        clients.append(torch.stack([mechanism.release() for _ in range(STEPS)]).sum(0))
    walked = run.training.learning_rate * torch.stack(clients).mean(0)
    assert float(walked.std()) == pytest.approx(1 / 64, rel=0.15)
    longest = run.training.learning_rate * STEPS * run.privacy.max_grad_norm
    assert float(walked.norm()) / longest == pytest.approx(proposed.noise, rel=0.15)


def test_more_budget_and_more_sites_allow_a_larger_rate() -> None:
    def rate(config: RunConfig) -> float:
        found: float = propose(config, examples=EXAMPLES, parameters=1).settings["training.learning_rate"]
        return found

    assert rate(causal(1.0)) < rate(causal(3.0)) < rate(causal(8.0))
    assert rate(causal(clients=12)) == pytest.approx(2 * rate(causal()), rel=0.05)


def test_init_writes_what_is_proposed(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    result = fedft(
        *("config", "init", path, "--private", "--labels", "a,b,c", "--epsilon", "2", "--examples", "900")
    )
    assert result.exit_code == 0, result.output
    config = load_config(path)
    assert config.task.labels == ("a", "b", "c")
    assert config.privacy.epsilon == 2
    assert config.head.learning_rate == 3
    assert private_head_of(config, 900)[Stage.HEAD].steps == config.head.steps > 0
    assert fedft("config", "init", "-", "--examples", "900").exit_code == 2


def test_the_plan_shows_the_proposal(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    fedft("config", "init", path, "--private", "--labels", "a,b,c")
    options = ("--examples", "900", "--parameters", "100", "--batch", "90", "--epsilon", "3")
    shown = output_json(fedft("privacy", "plan", path, *options, "--json"))
    assert shown["proposal"]["settings"]["head.learning_rate"] == 3
    people = fedft("privacy", "plan", path, *options)
    assert "--set head.steps=" in people.stdout
    assert "nats" in people.stdout
