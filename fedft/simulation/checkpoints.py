"""Working with a run that is on disk: its model at any committed round, evaluated or exported."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fedft.adapters import export_peft, merge
from fedft.config.load import from_json
from fedft.coordinator.evaluation import records_of
from fedft.data.readers import load_records
from fedft.errors import Code, FedftError
from fedft.files import new_folder
from fedft.models.pooled import PooledClassifier
from fedft.store import EvaluationRecord, RunRecord, RunStore
from fedft.training.model_runtime import ModelRuntime

ExportKind = Literal["peft", "merged"]


def open_round(store: RunStore, run: RunRecord, round_number: int | None = None) -> ModelRuntime:
    """Load the base, attach the run's frame and set the state of a round (the last, if None).

    Raises:
        FedftError: FEDFT-6003 when the round is not committed, FEDFT-2010 when the base model is not the
            run's any more, FEDFT-6005 when a file of the store is missing or damaged.

    """
    last = store.last_round(run.id)
    if last is None:
        raise FedftError(Code.ROUND_NOT_COMMITTED, f"run {run.id} has no committed round yet")
    state = store.state(run.id, last if round_number is None else round_number)
    runtime = ModelRuntime(from_json(run.config))
    if runtime.base_digest != run.base_digest:
        raise FedftError(
            Code.BASE_MODEL_MISMATCH,
            f"base model digest {runtime.base_digest[:16]}…, the run's is {run.base_digest[:16]}…",
            hint="the weights at model.source have changed since the run",
        )
    runtime.attach_once(store.read_frame(run.frame_digest), run.frame_digest)
    runtime.load(state)
    return runtime


def evaluate_run(
    store: RunStore, run: RunRecord, round_number: int | None = None, data: str | None = None
) -> list[EvaluationRecord]:
    """Measure a round's state on the run's test records, or on the records of ``data``."""
    runtime = open_round(store, run, round_number)
    if data is None:
        samples, _ = runtime.data.test
    else:
        settings = runtime.config.data
        records = load_records(data, format=settings.format, columns=settings.columns, split="test")
        samples, _ = runtime.task.prepare(records)
    return list(records_of(runtime.evaluate(samples), "central"))


def export_run(
    store: RunStore, run: RunRecord, out: Path, kind: ExportKind, round_number: int | None = None
) -> Path:
    """Write a round's adapter for PEFT, or the float32 model with the adapter merged into its weights.

    A pooled head goes beside it, to be read by ``fedft.models.pooled.load_head``; the rest is then for the
    model without a head (``AutoModel``).

    The folder is there when it is complete.

    Raises:
        FedftError: FEDFT-6008 when ``out`` is a folder with something in it, FEDFT-2119 when the base
            cannot be merged into.

    """
    with new_folder(out) as begun:
        runtime = open_round(store, run, round_number)
        _export(runtime, begun, kind)
        runtime.base.tokenizer.save_pretrained(begun)
    return out


def _export(runtime: ModelRuntime, out: Path, kind: ExportKind) -> None:
    model = runtime.base.model
    if isinstance(model, PooledClassifier):
        _export_pooled(runtime, model, out, kind)
    elif kind == "peft":
        base = runtime.config.model.source
        export_peft(runtime.adapters, out, base_model=base, task_type=type(runtime.task).peft_type)
    else:
        merge(runtime.adapters).save_pretrained(out)  # type: ignore[operator]


def _export_pooled(runtime: ModelRuntime, model: PooledClassifier, out: Path, kind: ExportKind) -> None:
    """Write the body as a model of its own kind, and the head beside it."""
    config = runtime.config
    model.head.save(out, config.task.labels)
    if kind == "peft":
        export_peft(
            runtime.adapters,
            out,
            base_model=config.model.source,
            task_type="FEATURE_EXTRACTION",
            body=model.base_model_prefix,
        )
    else:
        merge(runtime.adapters)
        model.body.save_pretrained(out)
