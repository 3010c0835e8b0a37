"""One client's training in one round, without privacy."""

from __future__ import annotations

from dataclasses import dataclass

from fedft import clock
from fedft.training import seeds
from fedft.training.head_stage import head_steps, measure_center, train_head
from fedft.training.model_runtime import ModelRuntime
from fedft.training.schedule import local_steps
from fedft.training.stages import Stage, all_rounds, stage_of


@dataclass(frozen=True)
class LocalReport:
    """What a client did in a round: the examples that weigh it, and its metrics."""

    examples: int
    metrics: dict[str, float]


def train_client(runtime: ModelRuntime, client: int, *, round_number: int, key: str) -> LocalReport:
    """Train one client for one round from the loaded state.

    Its randomness derives from (run seed, round, client key) and nothing else.
    """
    stage = stage_of(runtime.config, round_number)
    if stage is Stage.ALL:
        return _train_all(runtime, client, round_number, key)
    return _train_head(runtime, client, stage)


def _train_all(runtime: ModelRuntime, client: int, round_number: int, key: str) -> LocalReport:
    config, data = runtime.config, runtime.data.of(client)
    steps = local_steps(config.training, len(data.train))
    runtime.memory.restart()
    report = runtime.fit(
        data.train,
        generator=seeds.generator(config.seed, "round", round_number, key),
        first_step=(round_number - 1 - config.head.rounds) * steps,
        total_steps=all_rounds(config) * steps,
    )
    counts = {"truncated": data.report.truncated, "dropped": data.report.dropped, "empty": data.report.empty}
    metrics = {"train_loss": report.loss, "steps": float(report.steps), "seconds": report.seconds}
    shown = {f"samples_{name}": float(count) for name, count in counts.items() if count}
    if (peak := runtime.memory.peak()) is not None:
        metrics["peak_memory"] = float(peak)
    return LocalReport(len(data.train), metrics | shown)


def _train_head(runtime: ModelRuntime, client: int, stage: Stage) -> LocalReport:
    started = clock.monotonic()
    head, pooled, labels = runtime.head_data(client, runtime.data.of(client).train)
    metrics: dict[str, float] = {}
    if stage is Stage.CENTER:
        measure_center(head, pooled)
    else:
        section = runtime.config.head
        metrics = {
            "train_loss": train_head(head, pooled, labels, section),
            "steps": float(head_steps(section)),
        }
    return LocalReport(len(pooled), metrics | {"seconds": clock.monotonic() - started})
