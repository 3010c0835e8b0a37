"""``fedft plan memory``."""

from __future__ import annotations

import pytest

from fedft.config import load_config
from fedft.quant import QuantisedLinear
from fedft.training.memory import plan_run
from fedft.training.model_runtime import ModelRuntime
from tests.cli.run import fedft, output_json, words


def planned(*arguments: object) -> dict[str, int]:
    values = output_json(fedft("plan", "memory", *arguments, "--json"))
    assert values["peak"] == sum(values["bytes"].values())
    return {**values["bytes"], "peak": values["peak"]}


def test_the_plan_of_the_demo() -> None:
    plan = planned("demo")
    text = words(fedft("plan", "memory", "demo").stdout)

    assert "activations and temporaries" in text
    assert "peak" in text
    assert plan["workspace"] == 0


def test_weights_and_matrices_are_those_of_the_session() -> None:
    config = load_config("demo", {"model.quant": "nf4", "adapter.initialiser": "random"})
    runtime = ModelRuntime(config)
    runtime.attach(runtime.build_frames())

    plan = plan_run(config)

    matrices = sum(value.size for value in runtime.state().values())
    assert plan.trainable == 4 * 4 * matrices
    modules = runtime.base.model.modules()
    body = sum(module.stored.nbytes for module in modules if isinstance(module, QuantisedLinear))
    rest = {p.data_ptr(): p.nbytes for p in runtime.base.model.parameters()}
    rest |= {b.data_ptr(): b.nbytes for b in runtime.base.model.buffers()}
    layers = runtime.adapters.layers.values()
    frames = sum(layer.get_buffer(part).nbytes for layer in layers for part in ("A", "B"))
    assert plan.frames == frames
    assert plan.weights == pytest.approx(body + sum(rest.values()) - frames - 4 * matrices, rel=0.01)


def test_the_configuration_and_the_options_count() -> None:
    usual = planned("demo", "--set", "training.micro_batch_size=8")

    assert planned("demo", "--batch", 8) == usual
    assert planned("demo", "--batch", 16)["activations"] > 1.8 * usual["activations"]
    assert planned("demo", "--batch", 8, "--tokens", 16)["activations"] < usual["activations"]
    assert planned("demo", "--batch", 8, "--set", "model.quant=nf4")["weights"] < 0.7 * usual["weights"]


def test_a_model_that_is_not_there() -> None:
    result = fedft("plan", "memory", "demo", "--set", "model.source=./none")

    assert result.exit_code == 1
    assert "FEDFT-2001" in result.stderr
