"""Runs on a quantised base."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedft.client.worker.answer import process_worker
from fedft.errors import FedftError
from fedft.models.load import load_base
from fedft.models.quantised import save_stored
from fedft.quant import QuantisedLinear, select
from fedft.quant.cpu_library import CpuLibrary
from fedft.simulation.checkpoints import evaluate_run, export_run, open_round
from fedft.simulation.simulate import simulate
from fedft.store import RunStore
from tests.federation import run_inline, tiny_config

NF4 = {"model.quant": "nf4"}


def test_the_same_digest_every_time_and_another_one_than_unquantised(tmp_path: Path) -> None:
    _, first = run_inline(tiny_config(tmp_path, **NF4))
    process_worker.cache_clear()
    _, again = run_inline(tiny_config(tmp_path, **NF4))
    _, dense = run_inline(tiny_config(tmp_path))

    assert first.final_digest == again.final_digest != dense.final_digest
    assert first.base_digest == again.base_digest != dense.base_digest


def test_plain_torch_gives_the_digest_of_the_compiled_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, compiled = run_inline(tiny_config(tmp_path, **NF4))
    process_worker.cache_clear()
    monkeypatch.setattr(select, "cpu", lambda: None)
    monkeypatch.setattr(CpuLibrary, "dequantise", None)  # no way around it

    _, plain = run_inline(tiny_config(tmp_path, **NF4))

    assert plain.final_digest == compiled.final_digest


@pytest.mark.parametrize(
    ("initialiser", "format"),
    [("lora-sb", "nf4"), ("lora-xs", "nf4"), ("random", "nf4"), ("lora-sb", "int8")],
)
def test_every_frame_that_leaves_the_base_alone(initialiser: str, format: str, tmp_path: Path) -> None:
    settings = {"adapter.initialiser": initialiser, "model.quant": format}
    store, run = run_inline(tiny_config(tmp_path, **settings))

    losses = [record.evaluations[0].metrics["loss"] for record in store.rounds(run.id)]
    assert run.status == "completed"
    assert losses[-1] < losses[0]


def test_files_in_nf4_give_the_same_run(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **NF4)
    _, expected = run_inline(config)
    base = load_base(config.model, config.task, config.seed)
    save_stored(base.model, base.tokenizer, tmp_path / "nf4", base.head)

    _, run = run_inline(tiny_config(tmp_path, **NF4, **{"model.source": str(tmp_path / "nf4")}))

    assert run.final_digest == expected.final_digest


def test_a_finished_run_is_evaluated_and_exported_but_not_merged(tmp_path: Path) -> None:
    store, run = run_inline(tiny_config(tmp_path, **NF4))

    runtime = open_round(store, run)
    assert any(isinstance(module, QuantisedLinear) for module in runtime.base.model.modules())
    again = evaluate_run(store, run)
    assert again[0].metrics["loss"] == store.rounds(run.id)[-1].evaluations[0].metrics["loss"]
    export_run(store, run, tmp_path / "peft", "peft")
    assert (tmp_path / "peft" / "adapter_model.safetensors").exists()
    with pytest.raises(FedftError, match=r"FEDFT-2119.*QuantisedLinear"):
        export_run(store, run, tmp_path / "merged", "merged")


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_the_simulation_engine_ends_with_the_inline_digest(tmp_path: Path) -> None:
    _, inline = run_inline(tiny_config(tmp_path, **NF4))
    process_worker.cache_clear()
    config = tiny_config(
        tmp_path, **NF4, **{"simulation.backend": "ray", "store.path": str(tmp_path / "ray")}
    )

    run = simulate(config, store=RunStore(config.store.path))

    assert run.final_digest == inline.final_digest
