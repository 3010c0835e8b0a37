"""The round before the first: the clients' noised sketches become the run's frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from flwr.app import MessageType
from flwr.serverapp import Grid

from fedft.adapters import FrameSet
from fedft.config import RunConfig
from fedft.config.load import to_json
from fedft.coordinator.broadcast import Broadcast
from fedft.coordinator.collect import record_reply
from fedft.coordinator.exchange import ExchangeOptions, exchange
from fedft.coordinator.handshake import handshake
from fedft.coordinator.instructions import InstructionBuilder
from fedft.coordinator.sampling import replies_needed
from fedft.coordinator.server_model import ServerModel
from fedft.coordinator.statements import example_level_statement
from fedft.errors import Code, FedftError
from fedft.statements import PrivacyStatement
from fedft.store import UpdateRecord
from fedft.training.model_runtime import ModelRuntime
from fedft.training.private_client import plan_of
from fedft.training.sketch import sketch_manifest, sketched_frames
from fedft.wire import Setup, Update


def gather_sketches(
    grid: Grid,
    run_id: str,
    runtime: ModelRuntime,
    *,
    wanted: int,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[FrameSet, list[UpdateRecord]]:
    """Ask every client for its sketch; return the frame of their mean, and a record of each.

    Each sketch is clipped and noised at its client and charged there, so that everything here is
    post-processing.

    Raises:
        FedftError: FEDFT-6109 when too few sketches come in; what the handshake raises.

    """
    config, plan = runtime.config, plan_of(runtime)
    model = ServerModel(runtime, "", Setup(to_json(config)), {})
    book = InstructionBuilder(run_id, config, model, sketch_manifest(plan))
    participants, _, _ = handshake(grid, book, wanted=wanted, stopped=stopped)
    aggregator = book.sketch_aggregator(list(participants))
    broadcast = Broadcast(book.sketch(), model.setup)
    requests = [
        broadcast.request(client, member.node_id, has_setup=True) for client, member in participants.items()
    ]
    terms = ExchangeOptions(MessageType.TRAIN, "0", config.rounds.deadline, config.rounds.retries, stopped)
    records = [
        record_reply(answer, aggregator, book.max_reply_bytes, _stated(config))
        for answer in exchange(grid, requests, terms, broadcast.follow_up)
    ]
    _require(records, replies_needed(len(participants), config.rounds.min_replies))
    adapter = config.adapter
    frames = sketched_frames(plan, aggregator.result(), rank=adapter.rank, scale=adapter.scale)
    return frames, sorted(records, key=lambda record: record.client)


def with_sketches(greeted: list[UpdateRecord], sketches: list[UpdateRecord]) -> list[UpdateRecord]:
    """Add what the sketches sent, took and stated to the handshake's records, which share their round."""
    found = {record.client: record for record in sketches}
    return [_joined(record, found.get(record.client)) for record in greeted]


def _joined(record: UpdateRecord, sketch: UpdateRecord | None) -> UpdateRecord:
    if sketch is None:
        return record
    return replace(
        record,
        bytes_up=record.bytes_up + sketch.bytes_up,
        bytes_down=record.bytes_down + sketch.bytes_down,
        bytes_setup=record.bytes_setup + sketch.bytes_setup,
        seconds=record.seconds + sketch.seconds,
        metrics=record.metrics | sketch.metrics,
        privacy=sketch.privacy,
    )


def _stated(config: RunConfig) -> Callable[[Update], PrivacyStatement]:
    privacy = config.privacy
    return partial(example_level_statement, delta=privacy.delta, max_norm=privacy.sketch_max_norm)


def _require(records: list[UpdateRecord], needed: int) -> None:
    accepted = sum(record.status == "accepted" for record in records)
    if accepted < needed:
        reasons = "; ".join(f"{r.client}: {r.code} {r.message}" for r in records if r.status != "accepted")
        raise FedftError(
            Code.TOO_FEW_SKETCHES,
            f"{accepted} of the {needed} sketches that the frame needs came in: {reasons}",
        )
