from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

from fedft.config import RunConfig, load_config
from fedft.data.samples import ClassSample
from fedft.errors import FedftError
from fedft.models.pooled import PooledClassifier, PooledHead, load_head
from fedft.models.sources import resolve_source
from fedft.privacy.accounting.accountants import pld_epsilon
from fedft.privacy.site.ledger import Ledger
from fedft.simulation.checkpoints import export_run, open_round
from fedft.simulation.simulate import simulate
from fedft.store import RunStore
from fedft.training.features import labels_of, pooled_features, start_head
from fedft.training.model_runtime import ModelRuntime
from fedft.training.private_client import train_client
from fedft.training.private_schedule import private_round

WORDS = (["awful", "bad", "poor"], ["good", "fine", "great"])


def write_classes(path: Path, count: int) -> str:
    rows = (f"{WORDS[i % 2][i % 3]} number {i}\t{i % 2}\n" for i in range(count))
    path.write_text("".join(rows))
    return str(path)


@pytest.fixture
def overrides(tmp_path: Path) -> dict[str, object]:
    settings: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    tokenizer = AutoTokenizer.from_pretrained(resolve_source("demo"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        described = BertConfig(
            vocab_size=len(tokenizer), num_attention_heads=2, pad_token_id=tokenizer.pad_token_id, **settings
        )
        BertModel(described).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    return {
        "model.source": str(tmp_path / "bert"),
        "task.kind": "sequence-classification",
        "task.labels": "no, yes",
        "data.train": write_classes(tmp_path / "train.tsv", 30),
        "data.test": write_classes(tmp_path / "test.tsv", 10),
        "data.public": write_classes(tmp_path / "public.tsv", 16),
        "data.columns": "text, label",
        "data.partition.kind": "iid",
        "data.partition.clients": 2,
        "adapter.rank": 4,
        "training.steps": 2,
        "rounds.total": 2,
        "codec.name": "dense",
        "evaluation.exact_match": False,
        "data.fields.group": "",
        "simulation.backend": "inline",
        "evaluation.every": 1,
        "store.path": str(tmp_path / "store"),
    }


@pytest.fixture
def config(overrides: dict[str, object]) -> RunConfig:
    return load_config("demo", overrides)


def samples_of(runtime: ModelRuntime) -> Sequence[ClassSample]:
    return runtime.data.of(0).train


def test_features_come_in_the_order_of_the_samples(config: RunConfig) -> None:
    runtime = ModelRuntime(config)
    model, samples = runtime.base.model, samples_of(runtime)
    assert isinstance(model, PooledClassifier)
    together = pooled_features(model, runtime.task, samples, 4)
    alone = [pooled_features(model, runtime.task, [sample], 1)[0] for sample in samples]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=1e-4)


def test_a_started_head_is_what_gradient_descent_on_the_mean_loss_gives() -> None:
    generator = torch.Generator().manual_seed(0)
    pooled = torch.nn.functional.normalize(torch.randn(20, 2, 3, generator=generator), dim=2)
    labels = torch.randint(3, (20,), generator=generator)
    head, expected = (PooledHead("mean", 2, 3, 3, normalise=True) for _ in range(2))
    start_head(head, pooled, labels)
    expected.center.data.copy_(pooled.mean(0))
    trained = list(expected.classifier.parameters())
    optimizer = torch.optim.SGD(trained, lr=3.0)
    for _ in range(300):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(expected(pooled), labels)
        loss.backward(inputs=trained)
        optimizer.step()
    torch.testing.assert_close(head(pooled), expected(pooled), atol=1e-3, rtol=1e-3)


def test_a_run_starts_from_what_public_records_teach_the_head(config: RunConfig, tmp_path: Path) -> None:
    store = RunStore(config.store.path)
    run = simulate(config, store=store)
    start = store.state(run.id, 0)
    assert start["head.center"].any()
    assert start["head.classifier.weight"].any()
    end = store.state(run.id, 2)
    assert (end["head.center"] == start["head.center"]).all()
    assert (end["head.classifier.weight"] != start["head.classifier.weight"]).any()


def test_without_public_gradients_the_head_starts_at_zero(config: RunConfig) -> None:
    random = config.adapter.model_copy(update={"initialiser": "random"})
    runtime = ModelRuntime(config.model_copy(update={"adapter": random}))
    runtime.attach(runtime.build_frames())
    assert not runtime.state()["head.classifier.weight"].any()


@pytest.mark.parametrize("kind", ["merged", "peft"])
def test_an_exported_body_and_head_compute_what_the_run_does(
    config: RunConfig, tmp_path: Path, kind: Any
) -> None:
    from peft import PeftModel

    store = RunStore(config.store.path)
    run = simulate(config, store=store)
    export_run(store, run, tmp_path / "out", kind)
    runtime = open_round(store, run)
    samples = list(samples_of(runtime)[:6])
    batch = runtime.task.collate(samples)
    labels = batch.pop("labels")
    assert labels.equal(labels_of(samples))
    base = config.model.source if kind == "peft" else str(tmp_path / "out")
    body: Any = AutoModel.from_pretrained(base).eval()
    if kind == "peft":
        body = PeftModel.from_pretrained(body, str(tmp_path / "out"))
    head, names = load_head(tmp_path / "out")
    hidden = body(**batch, output_hidden_states=True).hidden_states
    found = head(head.pool(hidden, batch["attention_mask"]))
    torch.testing.assert_close(found, runtime.base.model(**batch).logits, atol=1e-4, rtol=1e-3)
    assert names == ["no", "yes"]


HEAD_FIRST: dict[str, object] = {
    "adapter.initialiser": "random",
    "head.rounds": 3,
    "head.steps": 20,
    "rounds.total": 4,
    "rounds.weighting": "uniform",
}


def test_the_head_learns_alone_and_the_adapters_rest_meanwhile(overrides: dict[str, object]) -> None:
    config = load_config("demo", overrides | HEAD_FIRST)
    store = RunStore(config.store.path)
    run = simulate(config, store=store)
    start, center, head, end = (store.state(run.id, number) for number in (0, 1, 3, 4))
    moved = {name for name in start if (start[name] != center[name]).any()}
    assert moved == {"head.center"}
    assert {name for name in start if (center[name] != head[name]).any()} == {
        "head.classifier.weight",
        "head.classifier.bias",
    }
    assert any((head[name] != end[name]).any() for name in start if "head" not in name)
    evaluations = {r.round: r.evaluations[0].metrics for r in store.rounds(run.id) if r.evaluations}
    assert evaluations[3]["loss"] < evaluations[1]["loss"]


def test_a_private_run_charges_every_stage_and_stays_within_epsilon(
    overrides: dict[str, object],
) -> None:
    private = {"privacy.mechanism": "example", "privacy.epsilon": 4.0, "privacy.delta": 1e-3}
    config = load_config("demo", overrides | HEAD_FIRST | private | {"training.batch_size": 4})
    store = RunStore(config.store.path)
    run = simulate(config, store=store)
    for client in ("client-000", "client-001"):
        book = Ledger(store.folder / "clients" / "ledgers" / run.id / client / "ledger.sqlite")
        events = book.events("train")
        assert sorted((event.sample_rate, event.steps) for event in events) == [(4 / 15, 2), (1, 1), (1, 40)]
        assert 3.9 < pld_epsilon(events, 1e-3) <= 4.0
    stated = [[update.privacy for update in r.updates] for r in store.rounds(run.id)[1:]]
    spent = [max(item.epsilon for item in round if item) for round in stated]
    assert spent == sorted(spent)
    assert spent[2] <= 2.0 < spent[3] <= 4.0


def test_a_head_that_the_checkpoint_brings_cannot_be_trained_alone(
    overrides: dict[str, object], tmp_path: Path
) -> None:
    source = str(overrides["model.source"])
    BertForSequenceClassification.from_pretrained(source, num_labels=2).save_pretrained(source)
    runtime = ModelRuntime(load_config("demo", overrides | HEAD_FIRST))
    runtime.attach(runtime.build_frames())
    with pytest.raises(FedftError, match="FEDFT-3033"):
        runtime.head_data(0, runtime.data.of(0).train)


def test_a_head_that_cannot_be_trained_alone_costs_a_private_client_nothing(
    overrides: dict[str, object], tmp_path: Path
) -> None:
    source = str(overrides["model.source"])
    BertForSequenceClassification.from_pretrained(source, num_labels=2).save_pretrained(source)
    private = {"privacy.mechanism": "example", "privacy.delta": 1e-3, "training.batch_size": 4}
    config = load_config("demo", overrides | HEAD_FIRST | private)
    runtime = ModelRuntime(config)
    runtime.attach(runtime.build_frames())
    charge = Mock(return_value=[])
    for number in (1, 2):
        rounds = private_round(config, 15, number)
        with pytest.raises(FedftError, match="FEDFT-3033"):
            train_client(runtime, 0, charge, rounds, round_number=number)
    charge.assert_not_called()


PHASES: dict[str, object] = {
    "public.steps": 4,
    "public.batch_size": 8,
    "public.learning_rate": 0.02,
    "head.rounds": 2,
    "head.steps": 5,
    "rounds.total": 4,
    "rounds.weighting": "uniform",
    "rounds.average": "tail",
    "training.optimizer": "sgd",
    "training.momentum": 0.5,
    "training.batch_size": 4,
    "privacy.mechanism": "example",
    "privacy.epsilon": 4.0,
    "privacy.delta": 1e-3,
    "privacy.clipping": "auto-s",
    "privacy.max_grad_norm": 0.3,
    "privacy.head_max_norm": 0.4,
}


def test_public_start_head_and_adapters_are_phases_of_one_private_run(overrides: dict[str, object]) -> None:
    config = load_config("demo", overrides | PHASES)
    store = RunStore(config.store.path)
    run = simulate(config, store=store)
    start, head, end = (store.state(run.id, number) for number in (0, 2, 4))
    adapters = {name for name in start if "head" not in name}
    base = open_round(store, run, 0).base_state()
    assert all((start[name] != base[name]).any() for name in adapters)
    assert {name for name in start if (start[name] != head[name]).any()} == {
        "head.classifier.weight",
        "head.classifier.bias",
    }
    assert all((end[name] != head[name]).any() for name in adapters)
    assert (end["head.center"] == start["head.center"]).all()
    book = Ledger(store.folder / "clients" / "ledgers" / run.id / "client-000" / "ledger.sqlite")
    assert sorted((e.sample_rate, e.steps) for e in book.events("train")) == [(4 / 15, 4), (1, 10)]
    assert 3.9 < pld_epsilon(book.events("train"), 1e-3) <= 4.0
    stated = [record.updates[0].privacy for record in store.rounds(run.id)[1:]]
    assert [item.max_norm for item in stated if item] == pytest.approx([1.0, 1.0, 0.5, 0.5])
    assert {item.scope for item in store.rounds(run.id)[0].evaluations} == {"central", "public"}


def test_bounds_apart_need_a_head(overrides: dict[str, object]) -> None:
    with pytest.raises(FedftError, match=r"privacy\.head_max_norm"):
        load_config("demo", overrides | PHASES | {"adapter.train_head": False, "head.rounds": 0})
