from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from fedft.config import RunConfig, load_config
from fedft.data.samples import ClassSample
from fedft.models.pooled import PooledClassifier, PooledHead, load_head
from fedft.models.sources import resolve_source
from fedft.simulation.checkpoints import export_run, open_round
from fedft.simulation.simulate import simulate
from fedft.store import RunStore
from fedft.training.features import labels_of, pooled_features, start_head
from fedft.training.model_runtime import ModelRuntime

WORDS = (["awful", "bad", "poor"], ["good", "fine", "great"])


def write_classes(path: Path, count: int) -> str:
    rows = (f"{WORDS[i % 2][i % 3]} number {i}\t{i % 2}\n" for i in range(count))
    path.write_text("".join(rows))
    return str(path)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    settings: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    tokenizer = AutoTokenizer.from_pretrained(resolve_source("demo"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        described = BertConfig(
            vocab_size=len(tokenizer), num_attention_heads=2, pad_token_id=tokenizer.pad_token_id, **settings
        )
        BertModel(described).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    overrides: dict[str, object] = {
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
        "store.path": str(tmp_path / "store"),
    }
    return load_config("demo", overrides)


def samples_of(runtime: ModelRuntime) -> Sequence[ClassSample]:
    return runtime.client_data(0).train


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
        loss.backward(inputs=trained)  # type: ignore[no-untyped-call]
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
