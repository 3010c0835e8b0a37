"""The instructions of one run and what the server expects back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from fedft.aggregation import RoundAggregator
from fedft.aggregation.rules.configured import configured_rule
from fedft.codecs import Codec, CodecContext, Manifest, Shard, make_codec, state_digest
from fedft.codecs.configured import configured_codec
from fedft.config import RunConfig
from fedft.coordinator.server_model import ServerModel
from fedft.coordinator.server_update import ServerUpdate
from fedft.registries import METHODS
from fedft.tensors import Arrays
from fedft.wire import Instruction, InstructionKind, ModelRef, RoundRef

_REPLY_OVERHEAD = 1 << 20


@dataclass(frozen=True)
class InstructionBuilder:
    """Builds every instruction of a run, and the aggregator that checks the replies against it."""

    run_id: str
    config: RunConfig
    model: ServerModel

    @property
    def manifest(self) -> Manifest:
        """Names and shapes of what is exchanged."""
        return self.model.manifest

    @property
    def max_reply_bytes(self) -> int:
        """The cap on a reply."""
        return max_reply_bytes(self.manifest)

    def reference(self, state: str = "") -> ModelRef:
        """Name the run's model and a state of it by their digests."""
        model = self.model
        return ModelRef(model.base_digest, model.frame_digest, self.manifest.digest(), state)

    def train(self, number: int, state: Arrays, max_norm: float = 0.0) -> Instruction:
        """Ask for a round of local training on ``state``, with updates clipped to ``max_norm`` (0: not)."""
        instruction = self._with_state(InstructionKind.TRAIN, number, state)
        return replace(instruction, max_update_norm=max_norm)

    def as_delta(self, instruction: Instruction, base: Arrays, shards: tuple[Shard, ...]) -> Instruction:
        """Return the same instruction with the state as ``base`` plus what ``shards`` code."""
        return replace(instruction, global_state=shards, delta_base_digest=state_digest(base))

    def downlink(self) -> ServerUpdate:
        """Return how means become states in this run."""
        method, name = METHODS.get(self.config.method), self.config.codec.downlink
        return ServerUpdate(method, None if name == "dense" else make_codec(name), self.manifest)

    def evaluate(self, number: int, state: Arrays) -> Instruction:
        """Ask for an evaluation of ``state`` on the client's held-out data."""
        return self._with_state(InstructionKind.EVALUATE, number, state)

    def step(self, kind: InstructionKind, number: int, message: bytes) -> Instruction:
        """Ask for a step of secure aggregation, about a message of `fedft.secagg`."""
        return Instruction(
            round=RoundRef(self.run_id, number),
            kind=kind,
            model=self.reference(),
            setup_digest=self.model.setup_digest,
            deadline_seconds=self.config.rounds.deadline,
            secagg=message,
        )

    def aggregator(
        self,
        number: int,
        state: Arrays,
        cohort: list[str],
        max_norm: float = 0.0,
        witness: Callable[[Arrays, int], None] | None = None,
    ) -> RoundAggregator:
        """Return the round's aggregator, which accepts updates of this cohort to this state only.

        An update's norm may be ``max_norm`` (0: ``rounds.max_update_norm``). ``witness`` is shown every
        update that counts.
        """
        rounds = self.config.rounds
        return RoundAggregator(
            self.manifest,
            round=RoundRef(self.run_id, number),
            model=self.reference(state_digest(state)),
            cohort=cohort,
            weighting=rounds.weighting,
            accepted=(self._codec.spec,),
            seed=self.codec_seed(number),
            max_weight=rounds.max_weight,
            max_norm=max_norm or rounds.max_update_norm,
            witness=witness,
            rule=configured_rule(self.config.aggregation),
        )

    @property
    def _codec(self) -> Codec:
        return configured_codec(self.config.codec)

    def _with_state(self, kind: InstructionKind, number: int, state: Arrays) -> Instruction:
        return Instruction(
            round=RoundRef(self.run_id, number),
            kind=kind,
            model=self.reference(state_digest(state)),
            setup_digest=self.model.setup_digest,
            global_state=tuple(make_codec("dense").encode(state, self.manifest, CodecContext())),
            accepted_codecs=(self._codec.spec,),
            codec_seed=self.codec_seed(number),
            deadline_seconds=self.config.rounds.deadline,
        )

    def codec_seed(self, number: int) -> bytes:
        """Return the seed that all share for the codecs of a round."""
        return hashlib.sha256(f"codec\0{self.config.seed}\0{number}".encode()).digest()


def max_reply_bytes(manifest: Manifest) -> int:
    """Return the cap on a reply: no larger than the dense state and a mebibyte."""
    return 4 * manifest.total_elements + _REPLY_OVERHEAD
