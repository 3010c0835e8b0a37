"""The round loop, written against Flower's public ``Grid``: one for every carrier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from flwr.app import MessageType
from flwr.serverapp import Grid

from fedft.adapters import Frames
from fedft.aggregation import RoundAggregator
from fedft.codecs import Manifest, state_digest
from fedft.config import RunConfig
from fedft.config.load import from_json
from fedft.coordinator.broadcast import Broadcast, delivery
from fedft.coordinator.central_mechanism import central_mechanism
from fedft.coordinator.collect import record_reply
from fedft.coordinator.evaluation import EvaluationTally, evaluate_centrally
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
from fedft.coordinator.exchange import ExchangeOptions, exchange
from fedft.coordinator.handshake import handshake
from fedft.coordinator.instructions import InstructionBuilder
from fedft.coordinator.participants import Participants
from fedft.coordinator.participation import Participation
from fedft.coordinator.sampling import replies_needed
from fedft.coordinator.server_model import prepare_model
from fedft.coordinator.server_update import RoundState
from fedft.coordinator.sketch_round import gather_sketches, with_sketches
from fedft.coordinator.timing import PhaseTimer
from fedft.errors import Code, FedftError
from fedft.store import Delivery, EvaluationRecord, RoundRecord, RunRecord, RunStore, UpdateRecord
from fedft.tensors import Arrays
from fedft.training.model_runtime import ModelRuntime


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
        self.delivered = self.store.deliveries(self.run.id)
        self.sketches: list[UpdateRecord] = []
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
        self.model = prepare_model(self.config, self.store, self.run.frame_digest, self._build_frames)
        self.book = self._identify()
        self.release = central_mechanism(self.config, self.run.id, self.store, self.book.manifest)
        self.participants, greeted = self._shake_hands()
        if last is None:
            step = RoundState(self.model.initial_state)
            self._commit_beginning(step.state, greeted)
        else:
            step = RoundState(self.store.state(self.run.id, last), (), self.store.residual(self.run.id, last))
        before = step.state
        for number in range((last or 0) + 1, total + 1):
            before, step = step.state, self._round(number, before, step)
        return self._finish(step.state)

    def _build_frames(self, runtime: ModelRuntime) -> Frames:
        if runtime.method.frame_facts(self.config).made_by != "clients":
            return runtime.build_frames()
        self.observe(PhaseStarted(0, "frame"))
        frames, self.sketches = gather_sketches(
            self.grid, self.run.id, runtime, wanted=self._wanted_clients(), stopped=self.stopped
        )
        return frames

    def _identify(self) -> InstructionBuilder:
        manifest = Manifest.of(self.model.initial_state)
        book = InstructionBuilder(self.run.id, self.config, self.model, manifest)
        self.store.update_run(
            self.run.id,
            base_digest=self.model.runtime.base_digest,
            frame_digest=self.model.frame_digest,
            manifest_digest=manifest.digest(),
        )
        return book

    def _shake_hands(self) -> tuple[Participants, list[UpdateRecord]]:
        self.observe(PhaseStarted(0, "clients", self._wanted_clients()))
        participants, records, deliveries = handshake(
            self.grid, self.book, wanted=self._wanted_clients(), stopped=self.stopped
        )
        for record in records:
            if record.status != "accepted":
                self._notice("client-left-out", f"{record.client}: {record.code} {record.message}".strip())
        self.delivered |= {(item.client, item.setup_digest) for item in deliveries}
        return participants, records

    def _commit_beginning(self, state: Arrays, greeted: list[UpdateRecord]) -> None:
        timer = PhaseTimer()
        evaluations: tuple[EvaluationRecord, ...] = ()
        if self.config.evaluation.every and self.config.evaluation.before:
            with timer.phase("evaluation"):
                evaluations = self._evaluate_before()
        record = timer.record(
            0, state_digest(state), updates=with_sketches(greeted, self.sketches), evaluations=evaluations
        )
        self._commit(record, state, None, [])

    def _evaluate_before(self) -> tuple[EvaluationRecord, ...]:
        self.observe(PhaseStarted(0, "evaluation"))
        runtime = self.model.runtime
        samples, report = runtime.test
        if len(samples) < report.records:
            self._notice("test-data", f"test records: {report}")
        return evaluate_centrally(runtime, runtime.base_state())

    def _round(self, number: int, before: Arrays, step: RoundState) -> RoundState:
        """Carry out one round on the state of ``step``, which the last round made of ``before``."""
        timer = PhaseTimer()
        cohort = self.release.draw(number, self._able(number))
        with timer.phase("training"):
            aggregator, updates, deliveries = self._train(number, before, step, cohort)
        if not self._enough(updates, len(cohort)):
            if self.participation.note_spent(updates):
                return self._round(number, before, step)
            self._refuse(number, updates, len(cohort))
        with timer.phase("aggregation"):
            seed = self.book.codec_seed(number + 1)
            mean, stated = self.release.release(number, aggregator, updates)
            new = self.book.downlink().apply(step.state, mean, step.residual, seed)
        evaluations = self._evaluations(number, new.state, timer)
        record = timer.record(
            number,
            state_digest(new.state),
            updates=updates,
            evaluations=evaluations,
            residual_digest="" if new.residual is None else state_digest(new.residual),
            privacy=stated,
            next_max_norm=self.release.max_norm,
        )
        self._commit(record, new.state, new.residual, deliveries)
        self.participation.note(number, updates)
        return new

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
        if not asked:  # a secret draw may choose nobody; what is released is then noise
            return True
        accepted = sum(record.status == "accepted" for record in updates)
        return accepted >= replies_needed(asked, self.config.rounds.min_replies)

    def _refuse(self, number: int, updates: list[UpdateRecord], asked: int) -> NoReturn:
        needed = replies_needed(asked, self.config.rounds.min_replies)
        accepted = sum(record.status == "accepted" for record in updates)
        raise FedftError(
            Code.TOO_FEW_UPDATES,
            f"round {number} got {accepted} of the {needed} updates that it needs: {_reasons(updates)}",
            hint=f"mend the clients, then resume run {self.run.id}",
        )

    def _train(
        self, number: int, before: Arrays, step: RoundState, cohort: list[str]
    ) -> tuple[RoundAggregator, list[UpdateRecord], list[Delivery]]:
        self.observe(PhaseStarted(number, "training", len(cohort)))
        instruction = self.book.train(number, step.state, self.release.max_norm)
        delta = self.book.as_delta(instruction, before, step.shards) if step.shards else None
        acknowledged = self.participation.acknowledgements()
        broadcast = Broadcast(instruction, self.model.setup, delta, acknowledged)
        aggregator = self.book.aggregator(number, step.state, cohort, self.release.limit)
        updates, deliveries = [], []
        for answer in self._exchange(broadcast, cohort, number, MessageType.TRAIN):
            record = record_reply(answer, aggregator, self.book.max_reply_bytes, self.release.stated)
            updates.append(record)
            self.observe(ClientAnswered(number, record))
            self._note_data(number, record)
            if record.code == Code.BUDGET_SPENT:
                self._notice("budget-spent", f"round {number}, {record.client}: {record.message}")
            if record.status in ("failed", "late"):
                self._notice("client-failed", f"round {number}, {record.client}: {record.message}")
            item = delivery(answer, self.model.setup_digest)
            if item is not None and (item.client, item.setup_digest) not in self.delivered:
                deliveries.append(item)
                self.delivered.add((item.client, item.setup_digest))
        return aggregator, sorted(updates, key=lambda record: record.client), deliveries

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
            central = evaluate_centrally(self.model.runtime, state)
            return central + (self._evaluate_federated(number, state) if settings.federated else ())

    def _evaluate_federated(self, number: int, state: Arrays) -> tuple[EvaluationRecord, ...]:
        broadcast = Broadcast(self.book.evaluate(number, state), self.model.setup)
        tally = EvaluationTally(self.book.max_reply_bytes)
        for answer in self._exchange(broadcast, sorted(self.participants), number, MessageType.EVALUATE):
            tally.add(answer)
        for problem in tally.problems:
            self._notice("evaluation-missing", f"round {number}, {problem}")
        return tally.records()

    def _exchange(self, broadcast: Broadcast, cohort: list[str], number: int, message_type: str) -> Any:
        rounds = self.config.rounds
        terms = ExchangeOptions(message_type, str(number), rounds.deadline, rounds.retries, self.stopped)
        requests = [
            broadcast.request(
                client,
                self.participants[client].node_id,
                has_setup=(client, self.model.setup_digest) in self.delivered,
                has_base=self.participation.took_part(client, number - 1),
            )
            for client in cohort
        ]
        return exchange(self.grid, requests, terms, broadcast.follow_up)

    def _commit(
        self, record: RoundRecord, state: Arrays, residual: Arrays | None, deliveries: list[Delivery]
    ) -> None:
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
