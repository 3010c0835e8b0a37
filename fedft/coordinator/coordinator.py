"""The round loop, written against Flower's public ``Grid``: one for every carrier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NoReturn

from flwr.serverapp import Grid

from fedft.adapters import Frames
from fedft.aggregation import Aggregator
from fedft.aggregation.rules.configured import configured_rule
from fedft.codecs import state_digest
from fedft.codecs.configured import codecs_of_run
from fedft.config import RunConfig
from fedft.config.load import from_json
from fedft.coordinator.broadcast import Broadcast
from fedft.coordinator.central_mechanism import central_mechanism
from fedft.coordinator.collect import with_verdicts
from fedft.coordinator.evaluation import PUBLIC, EvaluationPhase, evaluate_centrally
from fedft.coordinator.events import (
    ClientAnswered,
    Notice,
    Observer,
    PhaseStarted,
    RoundCommitted,
    RunFinished,
    RunStarted,
    nobody,
)
from fedft.coordinator.exchange import Request
from fedft.coordinator.handshake import Greeting, HandshakePhase
from fedft.coordinator.instructions import InstructionBuilder
from fedft.coordinator.masked_rounds import MaskedRounds, RoundLostError
from fedft.coordinator.participants import wait_for_nodes
from fedft.coordinator.participation import Participation
from fedft.coordinator.phase import PhaseDriver
from fedft.coordinator.sampling import replies_needed
from fedft.coordinator.secagg_steps import StepDriver
from fedft.coordinator.server_model import ServerBase, prepare_model
from fedft.coordinator.server_update import RoundState, averaged
from fedft.coordinator.sketch_phase import SketchPhase, with_sketches
from fedft.coordinator.timing import PhaseTimer
from fedft.coordinator.training_phase import Collected, TrainingPhase
from fedft.errors import Code, FedftError
from fedft.methods.averaging import AveragingError
from fedft.registries import METHODS
from fedft.store import (
    Delivery,
    EvaluationRecord,
    RoundRecord,
    RunRecord,
    RunStore,
    SecaggRecord,
    UpdateRecord,
)
from fedft.tensors import Arrays
from fedft.training.sketch import sketch_manifest, sketch_plan
from fedft.training.stages import stage_weights
from fedft.wire import Instruction, ModelRef

_CONNECT_TIMEOUT = 120.0


@dataclass
class Coordinator:
    """Carries one run from its last committed round to its end.

    Everything that the next round depends on is in the store: a coordinator that is killed at any
    moment and started again continues after the last commit and ends with the same bits.

    Args:
        grid: Flower's carrier of messages.
        store: where the run lives.
        run: the run, new or interrupted.
        observe: told of everything that happens.
        stopped: asked between messages; True ends the run, resumable.

    """

    grid: Grid
    store: RunStore
    run: RunRecord
    observe: Observer = nobody
    stopped: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self.config: RunConfig = from_json(self.run.config)
        self.driver = PhaseDriver(self.grid, self.config.rounds, self.stopped)
        self.delivered = self.store.deliveries(self.run.id)
        self.new_deliveries: list[Delivery] = []
        self.sketches: list[UpdateRecord] = []
        self.masked: MaskedRounds | None = None
        self.lost_in_a_row = 0
        self.participation = Participation.of(self.store.rounds(self.run.id))

    def execute(self) -> RunRecord:
        """Run to the end and return the finished run.

        Raises:
            FedftError: FEDFT-6102 when a round gets too few updates; what preparing raises.
            KeyboardInterrupt: when stopped; the run is then marked interrupted.

        """
        with self.store.lock(self.run.id):
            try:
                return self._execute()
            except KeyboardInterrupt:
                self.store.set_status(self.run.id, "interrupted")
                raise
            except Exception as error:
                self.store.set_status(self.run.id, "failed", f"{error}")
                raise

    def _execute(self) -> RunRecord:
        last, total = self.store.last_round(self.run.id), self.config.rounds.total
        self.store.set_status(self.run.id, "running")
        self.observe(RunStarted(self.run.id, self.run.name, (last or 0) + 1, total))
        if last == total and self.run.final_digest:
            return self._finish(self.store.state(self.run.id, total))
        self.observe(PhaseStarted(0, "model"))
        base = ServerBase(self.config, new=last is None, pinned=self.run.base_digest)
        model = prepare_model(base, self.store, self.run, lambda: self._make_frames(base))
        self.release = central_mechanism(self.config, self.run.id, self.store, model.manifest)
        reference = ModelRef(model.base_digest, model.frame_digest, model.manifest.digest(), "")
        greeting = self._shake_hands(reference)
        self.participants, greeted = greeting.participants, greeting.records
        self.delivered |= {(item.client, item.setup_digest) for item in greeting.deliveries}
        self.model = replace(model, base_digest=greeting.base_digest)
        self.book = self._identify()
        if self.config.secagg.required:
            self.masked = MaskedRounds(self.book, self.store, self.store.rounds(self.run.id))
        if last is None:
            step = RoundState(self.model.initial_state)
            self._commit_beginning(step.state, greeted)
        else:
            step = RoundState(self.store.state(self.run.id, last), (), self.store.residual(self.run.id, last))
        before = step.state
        for number in range((last or 0) + 1, total + 1):
            before, step = step.state, self._round(number, before, step)
        return self._finish(step.state)

    def _make_frames(self, base: ServerBase) -> Frames:
        if not base.method.frame_facts(self.config).from_sketches:
            return base.build_frames()
        self.observe(PhaseStarted(0, "frame"))
        plan = sketch_plan(self.config, base.target_shapes())
        before = ModelRef(base.digest, "", sketch_manifest(plan).digest(), "")
        greeting = self._greet(before)
        phase = SketchPhase(self.run.id, self.config, greeting.base_digest, plan, greeting.participants)
        frames, self.sketches = self.driver.run(phase)
        return frames

    def _identify(self) -> InstructionBuilder:
        book = InstructionBuilder(self.run.id, self.config, self.model)
        self.store.update_run(
            self.run.id,
            base_digest=self.model.base_digest,
            frame_digest=self.model.frame_digest,
            manifest_digest=book.manifest.digest(),
        )
        return book

    def _shake_hands(self, model: ModelRef) -> Greeting:
        self.observe(PhaseStarted(0, "clients", self._wanted_clients()))
        greeting = self._greet(model)
        for record in greeting.records:
            if record.status != "accepted":
                self._notice("client-left-out", f"{record.client}: {record.code} {record.message}".strip())
        return greeting

    def _greet(self, model: ModelRef) -> Greeting:
        wanted = self._wanted_clients()
        nodes = wait_for_nodes(self.grid, wanted, timeout=_CONNECT_TIMEOUT, stopped=self.stopped)
        return self.driver.run(
            HandshakePhase(
                self.run.id,
                self.run.config,
                model,
                nodes,
                codecs=codecs_of_run(self.config.codec),
                wanted=wanted,
                deadline=self.config.rounds.deadline,
                masked=self.config.secagg.required,
            )
        )

    def _commit_beginning(self, state: Arrays, greeted: list[UpdateRecord]) -> None:
        timer = PhaseTimer()
        evaluations: tuple[EvaluationRecord, ...] = ()
        settings, learned = self.config.evaluation, self.config.public.trains
        if settings.every and (settings.before or learned):
            with timer.phase("evaluation"):
                evaluations = self._evaluate_before() if settings.before else ()
                if learned:
                    evaluations += evaluate_centrally(self.model.require_runtime(), state, PUBLIC)
        record = timer.record(
            0, state_digest(state), updates=with_sketches(greeted, self.sketches), evaluations=evaluations
        )
        self._commit(record, state, None)

    def _evaluate_before(self) -> tuple[EvaluationRecord, ...]:
        self.observe(PhaseStarted(0, "evaluation"))
        runtime = self.model.require_runtime()
        samples, report = runtime.data.test
        if len(samples) < report.records:
            self._notice("test-data", f"test records: {report}")
        return evaluate_centrally(runtime, runtime.base_state())

    def _round(self, number: int, before: Arrays, step: RoundState) -> RoundState:
        """Carry out one round on the state of ``step``, which the last round made of ``before``."""
        timer = PhaseTimer()
        if self.masked is not None and (interrupted := self.masked.interrupted(number)):
            return self._lose(number, step, timer, [], interrupted)
        cohort = self.release.draw(number, self._able(number))
        error = self._averaging_error(step.state)
        try:
            with timer.phase("training"):
                collected = self._train(number, before, step, cohort, None if error is None else error.add)
        except RoundLostError as lost:
            return self._lose(number, step, timer, lost.updates, lost.record)
        updates = collected.updates
        if self.masked is None and not self._enough(updates, len(cohort)):
            if self.participation.note_spent(updates):
                return self._round(number, before, step)
            self._refuse(number, updates, len(cohort))
        with timer.phase("aggregation"):
            seed = self.book.codec_seed(number + 1)
            mean, stated = self.release.release(number, collected.aggregator, updates)
            updates = with_verdicts(updates, collected.aggregator.verdicts)
            missed = None if error is None else error.relative(mean)
            new = self.book.downlink().apply(step.state, mean, step.residual, seed)
            new = self._stage_mean(number, new)
        evaluations = self._evaluations(number, new.state, timer)
        record = timer.record(
            number,
            state_digest(new.state),
            updates=updates,
            evaluations=evaluations,
            residual_digest="" if new.residual is None else state_digest(new.residual),
            privacy=stated,
            next_max_norm=self.release.max_norm,
            averaging_error=missed,
            secagg=collected.masking,
        )
        self._commit(record, new.state, new.residual)
        self.participation.note(number, updates)
        self.lost_in_a_row = 0
        return new

    def _lose(
        self,
        number: int,
        step: RoundState,
        timer: PhaseTimer,
        updates: list[UpdateRecord],
        masking: SecaggRecord,
    ) -> RoundState:
        """Commit a round that has no sum: the state stays, and the round is never asked for again."""
        self._notice("round-lost", f"round {number}: {masking.lost} {_reasons(updates)}")
        new = self._stage_mean(number, RoundState(step.state, (), step.residual))
        record = timer.record(
            number,
            state_digest(new.state),
            updates=updates,
            evaluations=self._evaluations(number, new.state, timer),
            residual_digest="" if new.residual is None else state_digest(new.residual),
            next_max_norm=self.release.max_norm,
            secagg=masking,
        )
        self._commit(record, new.state, new.residual)
        self.participation.note(number, updates)
        self.lost_in_a_row += bool(updates)
        if self.lost_in_a_row > self.config.rounds.retries:
            raise FedftError(
                Code.ROUNDS_LOST,
                f"{self.lost_in_a_row} rounds in a row were lost, round {number} for {masking.lost}: "
                f"{_reasons(updates)}",
                hint=f"mend the clients, then resume run {self.run.id}: it goes on with the next round",
            )
        return new

    def _stage_mean(self, number: int, new: RoundState) -> RoundState:
        """Return the state after a round, with that of its stage in its place where the stage ends."""
        weights = stage_weights(self.config, number)
        return averaged(number, new, weights, partial(self.store.state, self.run.id))

    def _averaging_error(self, state: Arrays) -> AveragingError | None:
        """Return what measures the averaging of a round, None where it is exact."""
        method = METHODS.get(self.config.method)
        return None if method.exact else AveragingError(method, self.model.frames, state)

    def _able(self, number: int) -> list[str]:
        """Return the clients that have privacy budget left."""
        able = [client for client in self.participants if client not in self.participation.spent]
        if len(able) < self._fewest_clients():
            spent = ", ".join(sorted(self.participation.spent))
            raise FedftError(
                Code.TOO_FEW_BUDGETS,
                f"round {number}: {len(able)} of {len(self.participants)} clients have privacy budget left, "
                f"the run needs {self._fewest_clients()}; spent: {spent}",
                hint="the committed rounds stand; further ones need larger budgets at the sites",
            )
        return able

    def _enough(self, updates: list[UpdateRecord], asked: int) -> bool:
        if self.release.always_released:
            return True
        accepted = sum(record.status == "accepted" for record in updates)
        return accepted >= self._needed(asked)

    def _needed(self, asked: int) -> int:
        rule = configured_rule(self.config.aggregation)
        return max(replies_needed(asked, self.config.rounds.min_replies), rule.fewest_updates)

    def _refuse(self, number: int, updates: list[UpdateRecord], asked: int) -> NoReturn:
        needed = self._needed(asked)
        accepted = sum(record.status == "accepted" for record in updates)
        raise FedftError(
            Code.TOO_FEW_UPDATES,
            f"round {number} got {accepted} of the {needed} updates that it needs: {_reasons(updates)}",
            hint=f"mend the clients, then resume run {self.run.id}",
        )

    def _train(
        self,
        number: int,
        before: Arrays,
        step: RoundState,
        cohort: list[str],
        witness: Callable[[Arrays, int], None] | None,
    ) -> Collected:
        self.observe(PhaseStarted(number, "training", len(cohort)))
        instruction = self.book.train(number, step.state, self.release.max_norm)

        def train(instruction: Instruction, clients: Sequence[str], aggregator: Aggregator) -> Collected:
            delta = self.book.as_delta(instruction, before, step.shards) if step.shards else None
            broadcast = Broadcast(instruction, self.model.setup, delta, self.participation.acknowledgements())
            collected = self.driver.run(
                TrainingPhase(
                    number,
                    broadcast,
                    self._requests(broadcast, clients, number),
                    aggregator,
                    max_bytes=self.book.max_reply_bytes,
                    stated=self.release.stated,
                    settled=partial(self._settled, number),
                )
            )
            self._note_deliveries(collected.deliveries)
            return collected

        if self.masked is None:
            aggregator = self.book.aggregator(number, step.state, cohort, self.release.limit, witness)
            return train(instruction, cohort, aggregator)
        steps = StepDriver(
            instruction.round,
            self.book,
            self.driver,
            lambda broadcast, clients: self._requests(broadcast, clients, number),
            self._note_deliveries,
        )
        return self.masked.collect(instruction, cohort, self.participants, steps, train)

    def _note_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        given = {(item.client, item.setup_digest): item for item in deliveries}
        self.new_deliveries += [given[key] for key in given if key not in self.delivered]
        self.delivered |= set(given)

    def _settled(self, number: int, record: UpdateRecord) -> None:
        self.observe(ClientAnswered(number, record))
        self._note_data(number, record)
        if record.code == Code.BUDGET_SPENT:
            self._notice("budget-spent", f"round {number}, {record.client}: {record.message}")
        if record.status in ("failed", "late"):
            self._notice("client-failed", f"round {number}, {record.client}: {record.message}")

    def _note_data(self, number: int, record: UpdateRecord) -> None:
        """Say once what became of records that a client could not use as they are."""
        counts = {
            name.removeprefix("samples_"): n for name, n in record.metrics.items() if "samples_" in name
        }
        if counts and not self.participation.asked(record.client):
            shown = ", ".join(f"{int(count)} {name}" for name, count in sorted(counts.items()))
            self._notice("client-data", f"{record.client}: {shown} of its records")

    def _evaluations(self, number: int, state: Arrays, timer: PhaseTimer) -> tuple[EvaluationRecord, ...]:
        settings = self.config.evaluation
        due = settings.every and (number % settings.every == 0 or number == self.config.rounds.total)
        if not due:
            return ()
        with timer.phase("evaluation"):
            self.observe(PhaseStarted(number, "evaluation"))
            central = evaluate_centrally(self.model.require_runtime(), state)
            return central + (self._evaluate_federated(number, state) if settings.federated else ())

    def _evaluate_federated(self, number: int, state: Arrays) -> tuple[EvaluationRecord, ...]:
        broadcast = Broadcast(self.book.evaluate(number, state), self.model.setup)
        requests = self._requests(broadcast, sorted(self.participants), number)
        records, problems = self.driver.run(
            EvaluationPhase(number, broadcast, requests, self.book.max_reply_bytes)
        )
        for problem in problems:
            self._notice("evaluation-missing", f"round {number}, {problem}")
        return records

    def _requests(self, broadcast: Broadcast, cohort: Sequence[str], number: int) -> list[Request]:
        return [
            broadcast.request(
                client,
                self.participants[client].node_id,
                has_setup=(client, self.model.setup_digest) in self.delivered,
                has_base=self.participation.took_part(client, number - 1),
            )
            for client in cohort
        ]

    def _commit(self, record: RoundRecord, state: Arrays, residual: Arrays | None) -> None:
        deliveries, self.new_deliveries = self.new_deliveries, []
        self.store.commit_round(self.run.id, record, state, residual=residual, deliveries=deliveries)
        if self.config.store.keep_states:
            self.store.prune_states(self.run.id, self.config.store.keep_states)
        self.observe(RoundCommitted(record))

    def _finish(self, state: Arrays) -> RunRecord:
        digest = state_digest(state)
        self.store.update_run(self.run.id, status="completed", final_digest=digest, error="")
        self.observe(RunFinished(self.run.id, digest))
        return self.store.run(self.run.id)

    def _notice(self, kind: str, message: str) -> None:
        self.store.add_event(self.run.id, kind, message)
        self.observe(Notice(kind, message))

    def _wanted_clients(self) -> int:
        wanted = self.config.rounds.min_clients or self.config.data.partition.clients
        return max(wanted - len(self.participation.spent), self._fewest_clients())

    def _fewest_clients(self) -> int:
        rounds, clients = self.config.rounds, self.config.data.partition.clients
        return rounds.min_clients or replies_needed(clients, rounds.min_replies)


def _reasons(updates: list[UpdateRecord]) -> str:
    reasons = [f"{r.client} {r.status} ({r.code or r.message})" for r in updates if r.status != "accepted"]
    return "; ".join(reasons[:5]) or "no client answered"
