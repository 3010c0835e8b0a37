"""The phase before the first round of some runs: the clients' noised sketches become the frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from flwr.app import MessageType

from fedft.adapters import FrameSet
from fedft.aggregation import RoundAggregator
from fedft.codecs import make_codec
from fedft.config import RunConfig
from fedft.config.load import to_json
from fedft.coordinator.broadcast import Broadcast
from fedft.coordinator.collect import record_reply
from fedft.coordinator.exchange import Answer, Request
from fedft.coordinator.instructions import max_reply_bytes
from fedft.coordinator.participants import Participants
from fedft.coordinator.sampling import replies_needed
from fedft.coordinator.statements import example_level_statement
from fedft.errors import Code, FedftError
from fedft.privacy.mechanisms.sketch import SketchPlan
from fedft.store import UpdateRecord
from fedft.training.sketch import sketch_manifest, sketched_frames
from fedft.wire import Instruction, InstructionKind, ModelRef, RoundRef, Setup
from fedft.wire.setups import setup_digest

_DENSE = make_codec("dense")


class SketchPhase:
    """Asks every participant for its sketch and makes the frame of their mean.

    Each sketch is clipped and noised at its client and charged there, so that everything here is
    post-processing. What is asked for precedes the frame, so the model's reference names none.

    Args:
        run_id: of the run.
        config: of the run.
        base_digest: of the base model that all participants hold.
        plan: what is sketched.
        participants: who is asked.

    """

    number = 0
    message_type = MessageType.TRAIN

    def __init__(
        self, run_id: str, config: RunConfig, base_digest: str, plan: SketchPlan, participants: Participants
    ) -> None:
        self._config, self._plan, self._participants = config, plan, participants
        manifest, setup = sketch_manifest(plan), Setup(to_json(config))
        model, at = ModelRef(base_digest, "", manifest.digest(), ""), RoundRef(run_id, 0)
        self._broadcast = Broadcast(
            Instruction(
                round=at,
                kind=InstructionKind.SKETCH,
                model=model,
                setup_digest=setup_digest(setup),
                accepted_codecs=(_DENSE.spec,),
                deadline_seconds=config.rounds.deadline,
            ),
            setup,
        )
        self._aggregator = RoundAggregator(
            manifest,
            round=at,
            model=model,
            cohort=list(participants),
            weighting="uniform",
            accepted=(_DENSE.spec,),
        )
        self._max_bytes = max_reply_bytes(manifest)
        self._stated = partial(
            example_level_statement, delta=config.privacy.delta, max_norm=config.privacy.sketch_max_norm
        )
        self._records: list[UpdateRecord] = []

    def request(self) -> list[Request]:
        """Ask every participant; the handshake has given them the setup."""
        return [
            self._broadcast.request(client, member.node_id, has_setup=True)
            for client, member in self._participants.items()
        ]

    def follow_up(self, answer: Answer) -> Request | None:
        """Send the setup to a client that has lost it."""
        return self._broadcast.follow_up(answer)

    def take(self, answer: Answer) -> None:
        """Count one sketch, or record why it does not count."""
        self._records.append(record_reply(answer, self._aggregator, self._max_bytes, self._stated))

    def close(self) -> tuple[FrameSet, list[UpdateRecord]]:
        """Return the frame and a record of each sketch; FEDFT-6109 when too few sketches came in."""
        _require(self._records, replies_needed(len(self._participants), self._config.rounds.min_replies))
        adapter = self._config.adapter
        mean = self._aggregator.result()
        frames = sketched_frames(self._plan, mean, rank=adapter.rank, scale=adapter.scale)
        return frames, sorted(self._records, key=lambda record: record.client)


def with_sketches(greeted: Sequence[UpdateRecord], sketches: Sequence[UpdateRecord]) -> list[UpdateRecord]:
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


def _require(records: list[UpdateRecord], needed: int) -> None:
    accepted = sum(record.status == "accepted" for record in records)
    if accepted < needed:
        reasons = "; ".join(f"{r.client}: {r.code} {r.message}" for r in records if r.status != "accepted")
        raise FedftError(
            Code.TOO_FEW_SKETCHES,
            f"{accepted} of the {needed} sketches that the frame needs came in: {reasons}",
        )
