"""The rounds of a run with secure aggregation: keys before the training, the unmasked sum after it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedft.aggregation import Aggregator
from fedft.aggregation.reference import UpdateReference
from fedft.coordinator.instructions import InstructionBuilder
from fedft.coordinator.masked_aggregator import MaskedAggregator
from fedft.coordinator.participants import Participants
from fedft.coordinator.secagg_keys import SharedKeys, session_terms
from fedft.coordinator.secagg_steps import StepDriver
from fedft.coordinator.training_phase import Collected
from fedft.errors import Code, FedftError
from fedft.secagg import decode
from fedft.secagg.encode import encode
from fedft.secagg.grid import grid_kind
from fedft.secagg.masked_sum import MaskedSum
from fedft.secagg.messages import CohortRequest, RoundRequest
from fedft.secagg.sized_grid import SizedGrid
from fedft.store import RoundRecord, RunStore, SecaggRecord, UpdateRecord
from fedft.store.files import write_file
from fedft.wire import Instruction, InstructionKind

_LOSING = (Code.TOO_FEW_SURVIVORS, Code.SECRET_LOST, Code.UNMASKING_FAILED, Code.GRID_INVALID)
Train = Callable[[Instruction, Sequence[str], Aggregator], Collected]


class RoundLostError(Exception):
    """A round whose sum cannot be unmasked: nothing of it is revealed, and no client masks it again.

    Attributes:
        error: why.
        updates: the clients' records, none of them accepted.
        record: what the masking has cost.

    """

    def __init__(self, error: FedftError, updates: list[UpdateRecord], record: SecaggRecord) -> None:
        self.error, self.updates, self.record = error, updates, record
        super().__init__(str(error))


class MaskedRounds:
    """Masks a run's rounds, each of them once.

    That a round was begun is on disk before a client is asked: a coordinator that was killed in one goes on
    with the next, since clients mask nothing twice. Keys are in memory alone, and exchanged anew after that.

    Args:
        book: builds the run's instructions.
        store: where the run lives.
        rounds: those that are committed.

    """

    def __init__(self, book: InstructionBuilder, store: RunStore, rounds: Sequence[RoundRecord]) -> None:
        self._book, self._config = book, book.config
        self._begun_path = store.folder / "secagg" / book.run_id
        self.begun = int(self._begun_path.read_text()) if self._begun_path.exists() else 0
        self._keys: SharedKeys | None = None
        self._sizes = self._last_sizes(rounds)

    def collect(
        self,
        instruction: Instruction,
        cohort: Collection[str],
        participants: Participants,
        steps: StepDriver,
        train: Train,
    ) -> Collected:
        """Carry out one round: exchange keys if need be, train, unmask the sum.

        Args:
            instruction: to train; the request to mask is added here.
            cohort: the clients of the round.
            participants: everyone who takes part in the run.
            steps: asks for the protocol's steps.
            train: carries out the training of some clients into an aggregator.

        Raises:
            RoundLostError: when too few clients are left, or what they sent is no sum.

        """
        self._begin(instruction.round.round)
        trained: list[UpdateRecord] = []
        try:
            keys = self._keys_for(instruction, cohort, participants, steps)
            masked_sum, aggregator = self._aggregator(instruction, keys)
            request = encode(RoundRequest(masked_sum.request(), tuple(self._sizes.tolist())))
            ready = sorted(keys.ready.intersection(cohort))
            collected = train(replace(instruction, secagg=request), ready, aggregator)
            trained = collected.updates
            self._unmask(masked_sum, keys, steps)
            self._sizes = aggregator.unmask().sizes
        except FedftError as error:
            if error.code not in _LOSING:
                raise
            lost = [_lost(record, error) for record in steps.tally.joined(trained)]
            raise RoundLostError(error, lost, self._record(steps, cohort, 0, str(error.code))) from error
        joined = steps.tally.joined(trained)
        record = self._record(steps, cohort, len(masked_sum.survivors))
        return replace(collected, updates=joined, masking=record)

    def interrupted(self, number: int) -> SecaggRecord | None:
        """Return the record of a round that was begun and never committed; None for every other one."""
        if number > self.begun:
            return None
        return SecaggRecord(0, 0, 0, 0, 0, self._stated_sizes(), str(Code.ROUNDS_LOST))

    def _begin(self, number: int) -> None:
        write_file(self._begun_path, str(number).encode())

    def _keys_for(
        self,
        instruction: Instruction,
        cohort: Collection[str],
        participants: Participants,
        steps: StepDriver,
    ) -> SharedKeys:
        number = instruction.round.round
        if self._keys is None or not self._keys.serve(number, cohort):
            self._keys = None
            frame = instruction.model.frame_digest
            run_id = self._book.run_id
            terms, names = session_terms(self._config, run_id, frame, number, cohort, participants)
            self._keys = SharedKeys.exchanged(terms, names, steps)
        return self._keys

    def _aggregator(self, instruction: Instruction, keys: SharedKeys) -> tuple[MaskedSum, MaskedAggregator]:
        rounds, manifest = self._config.rounds, self._book.manifest
        max_weight = rounds.max_weight if rounds.weighting == "examples" else 1
        grid = SizedGrid(grid_kind(self._config.secagg.grid), manifest, self._sizes, max_weight)
        masked_sum = MaskedSum(keys.exchange, instruction.round.round, grid.payload)
        reference = UpdateReference(instruction.round, instruction.model, keys.ready)
        return masked_sum, MaskedAggregator(masked_sum, grid, reference, keys.numbers)

    def _unmask(self, masked_sum: MaskedSum, keys: SharedKeys, steps: StepDriver) -> None:
        def take_attestation(client: str, message: bytes) -> None:
            masked_sum.take_attestation(keys.numbers[client], decode.decode_attestation(message))

        def take_shares(client: str, message: bytes) -> None:
            masked_sum.take_shares(keys.numbers[client], decode.decode_unmask_reply(message))

        request = masked_sum.close_masked()
        survivors = [keys.names[member] for member in masked_sum.survivors]
        if isinstance(request, CohortRequest):
            steps.ask(InstructionKind.ATTEST, dict.fromkeys(survivors, encode(request)), take_attestation)
            request = masked_sum.close_attestations()
        steps.ask(InstructionKind.UNMASK, dict.fromkeys(survivors, encode(request)), take_shares)

    def _record(
        self, steps: StepDriver, cohort: Collection[str], survivors: int, lost: str = ""
    ) -> SecaggRecord:
        tally, keys = steps.tally, self._keys
        threshold = 0 if keys is None else keys.exchange.session.threshold
        up, down = sum(tally.bytes_up.values()), sum(tally.bytes_down.values())
        return SecaggRecord(len(cohort), threshold, survivors, up, down, self._stated_sizes(), lost)

    def _last_sizes(self, rounds: Sequence[RoundRecord]) -> NDArray[np.float32]:
        masked = [record.secagg for record in rounds if record.secagg is not None]
        if masked:
            return np.array(masked[-1].sizes, dtype=np.float32)
        first = self._config.secagg.first_size or self._config.training.learning_rate
        return np.full(len(self._book.manifest.tensors), first, dtype=np.float32)

    def _stated_sizes(self) -> tuple[float, ...]:
        return tuple(self._sizes.tolist())


def _lost(record: UpdateRecord, error: FedftError) -> UpdateRecord:
    if record.status != "accepted":
        return record
    return replace(record, status="refused", code=str(error.code), message="the round was lost", digest="")
