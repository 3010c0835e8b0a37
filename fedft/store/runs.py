"""Runs, rounds and states on disk; a round commits as one transaction or not at all."""

from __future__ import annotations

import fcntl
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import OperationalError

import fedft
from fedft import clock
from fedft.codecs import state_digest
from fedft.errors import Code, FedftError
from fedft.store import schema
from fedft.store.database import open_database
from fedft.store.files import read_arrays, write_arrays, write_file
from fedft.store.records import (
    Delivery,
    EvaluationRecord,
    RoundRecord,
    RunRecord,
    RunStatus,
    UpdateRecord,
)
from fedft.tensors import Arrays

_READ = ("rounds", "total_rounds")
"""Columns of a run's record that are computed when it is read."""


class RunStore:
    """The store of one folder: ``fedft.sqlite`` (WAL), ``states/`` and ``frames/`` named by digest.

    Several processes may open the same store. Every write is one transaction with
    ``synchronous=FULL``: what a method has returned from survives a crash of the machine.
    """

    def __init__(self, folder: str | Path, *, create: bool = True) -> None:
        self.folder = Path(folder)
        path = self.folder / "fedft.sqlite"
        if not create and not path.exists():
            raise FedftError(
                Code.STORE_NOT_FOUND, f"no run store in {self.folder}", hint="name its folder with --store"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FedftError(Code.STORE_UNUSABLE, f"cannot create {self.folder}: {error.strerror}") from error
        self._engine = open_database(path)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    # -- runs ----------------------------------------------------------------------------------------

    def create_run(self, name: str, config: str) -> RunRecord:
        """Add a run under a new id, ``name`` plus the time and four random characters."""
        now = clock.now()
        record = RunRecord(
            id=f"{name}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
            name=name,
            config=config,
            status="created",
            created_at=now.isoformat(timespec="microseconds"),
            version=fedft.__version__,
        )
        values = {key: value for key, value in vars(record).items() if key not in _READ}
        with self._transaction() as connection:
            connection.execute(insert(schema.runs).values(**values))
        return record

    def runs(self) -> list[RunRecord]:
        """Return all runs, oldest first."""
        with self._engine.connect() as connection:
            return [_run(row) for row in connection.execute(_runs_with_rounds()).mappings()]

    def run(self, reference: str) -> RunRecord:
        """Return the run with this id, a unique beginning of one, or ``latest``.

        Raises:
            FedftError: FEDFT-6002 when there is none, or more than one.

        """
        found = self.runs()
        if reference == "latest":
            matches = found[-1:]
        else:
            matches = [run for run in found if run.id == reference] or [
                run for run in found if run.id.startswith(reference)
            ]
        if len(matches) == 1:
            return matches[0]
        known = ", ".join(run.id for run in matches or found[-5:]) or "none"
        problem = "is the beginning of several runs" if matches else "is not a run of this store"
        raise FedftError(Code.RUN_NOT_FOUND, f"{reference!r} {problem}", hint=f"runs: {known}")

    def update_run(self, run_id: str, **values: str) -> None:
        """Set columns of a run: ``status``, ``error``, or one of the digests."""
        with self._transaction() as connection:
            _set(connection, run_id, **values)

    def set_status(self, run_id: str, status: RunStatus, error: str = "") -> None:
        """Record how a run stands."""
        self.update_run(run_id, status=status, error=error)

    def remove_run(self, run_id: str) -> None:
        """Delete a run, its rounds and the files that no other run refers to.

        Raises:
            FedftError: FEDFT-6007 a process is carrying the run out.

        """
        with self.lock(run_id):
            with self._engine.connect() as connection:
                mine, others = (_files(connection, owned) for owned in (_is(run_id), ~_is(run_id)))
            with self._transaction() as connection:
                for table in reversed(schema.metadata.sorted_tables):
                    column = table.c.id if table is schema.runs else table.c.run_id
                    connection.execute(delete(table).where(column == run_id))
            for digest in mine - others:
                self.state_path(digest).unlink(missing_ok=True)
                self.frame_path(digest).unlink(missing_ok=True)
            (self.folder / "locks" / run_id).unlink(missing_ok=True)

    # -- rounds --------------------------------------------------------------------------------------

    def commit_round(
        self,
        run_id: str,
        record: RoundRecord,
        state: Arrays,
        *,
        residual: Arrays | None = None,
        deliveries: Sequence[Delivery] = (),
    ) -> None:
        """Write the arrays' files, then everything about the round in one transaction."""
        write_arrays(self.state_path(record.state_digest), state)
        if residual is not None:
            write_arrays(self.state_path(record.residual_digest), residual)
        with self._transaction() as connection:
            connection.execute(insert(schema.rounds).values(run_id=run_id, **_round_values(record)))
            _insert_all(connection, schema.updates, run_id, record.round, record.updates)
            _insert_all(connection, schema.evaluations, run_id, record.round, record.evaluations)
            _insert_all(connection, schema.deliveries, run_id, None, deliveries)

    def last_round(self, run_id: str) -> int | None:
        """Return the number of the last committed round, or None."""
        query = select(func.max(schema.rounds.c.round)).where(schema.rounds.c.run_id == run_id)
        with self._engine.connect() as connection:
            return connection.execute(query).scalar()

    def rounds(self, run_id: str) -> list[RoundRecord]:
        """Return the committed rounds in order, with their updates and evaluations."""
        with self._engine.connect() as connection:
            rows = _select(connection, schema.rounds, run_id)
            updates = _by_round(_select(connection, schema.updates, run_id), UpdateRecord)
            evaluations = _by_round(_select(connection, schema.evaluations, run_id), EvaluationRecord)
        return [
            RoundRecord(
                **row,
                updates=tuple(updates.get(row["round"], ())),
                evaluations=tuple(evaluations.get(row["round"], ())),
            )
            for row in rows
        ]

    def roll_back(self, run_id: str, round_number: int) -> RunRecord:
        """Take back every round after a committed one; resuming the run goes on from there.

        What clients spent of their privacy budgets in rounds that are taken back stays spent.

        Raises:
            FedftError: FEDFT-6003 the round is not committed, FEDFT-6005 its state is not kept any more,
                FEDFT-6007 a process is carrying the run out.

        """
        with self.lock(run_id):
            self.state(run_id, round_number)
            self.residual(run_id, round_number)
            last = self.last_round(run_id)
            with self._transaction() as connection:
                for table in (schema.evaluations, schema.updates, schema.rounds):
                    later = (table.c.run_id == run_id) & (table.c.round > round_number)
                    connection.execute(delete(table).where(later))
                _set(connection, run_id, status="interrupted", final_digest="", error="")
                message = f"from round {last} to round {round_number}"
                connection.execute(insert(schema.events).values(_event(run_id, "rolled-back", message)))
        return self.run(run_id)

    def put_evaluations(self, run_id: str, round_number: int, records: Sequence[EvaluationRecord]) -> None:
        """Add evaluations to a committed round, in place of earlier ones of the same scope and group."""
        table = schema.evaluations
        with self._transaction() as connection:
            for record in records:
                connection.execute(
                    delete(table).where(
                        table.c.run_id == run_id,
                        table.c.round == round_number,
                        table.c.scope == record.scope,
                        table.c.group == record.group,
                    )
                )
            _insert_all(connection, table, run_id, round_number, records)

    def deliveries(self, run_id: str) -> set[tuple[str, str]]:
        """Return the pairs (client, setup digest) that need not be sent again."""
        with self._engine.connect() as connection:
            rows = _select(connection, schema.deliveries, run_id)
        return {(row["client"], row["setup_digest"]) for row in rows}

    # -- arrays --------------------------------------------------------------------------------------

    def state_path(self, digest: str) -> Path:
        """Return where a state lies."""
        return self.folder / "states" / f"{digest}.safetensors"

    def state(self, run_id: str, round_number: int) -> Arrays:
        """Read the state after a committed round; FEDFT-6003 when the round is not committed."""
        return self._arrays(self._digests(run_id, round_number)[0])

    def residual(self, run_id: str, round_number: int) -> Arrays | None:
        """Read what the broadcast's codec left out in a committed round; None without a codec."""
        digest = self._digests(run_id, round_number)[1]
        return self._arrays(digest) if digest else None

    def _arrays(self, digest: str) -> Arrays:
        arrays = read_arrays(self.state_path(digest))
        found = state_digest(arrays)
        if found != digest:
            raise FedftError(
                Code.STORED_FILE_DAMAGED, f"{self.state_path(digest)} holds a state with digest {found[:16]}…"
            )
        return arrays

    def _digests(self, run_id: str, round_number: int) -> tuple[str, str]:
        table = schema.rounds.c
        query = select(table.state_digest, table.residual_digest).where(
            table.run_id == run_id, table.round == round_number
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise FedftError(Code.ROUND_NOT_COMMITTED, f"round {round_number} of {run_id} is not committed")
        return row[0], row[1]

    def prune_states(self, run_id: str, keep: int) -> None:
        """Delete arrays, but round 0's, the last ``keep`` rounds' and those that other runs refer to."""
        table = schema.rounds.c
        query = select(table.run_id, table.round, table.state_digest, table.residual_digest)
        with self._engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(query)]
        last = max((number for run, number, *_ in rows if run == run_id), default=0)
        recent = [pair for run, number, *pair in rows if run != run_id or number > last - keep or not number]
        kept = {digest for pair in recent for digest in pair}
        for digest in {digest for _, _, *pair in rows for digest in pair} - kept - {""}:
            self.state_path(digest).unlink(missing_ok=True)

    def frame_path(self, digest: str) -> Path:
        """Return where a frame lies."""
        return self.folder / "frames" / f"{digest}.safetensors"

    def write_frame(self, digest: str, data: bytes) -> None:
        """Keep a frame's bytes under its digest."""
        if not self.frame_path(digest).exists():
            write_file(self.frame_path(digest), data)

    def read_frame(self, digest: str) -> bytes:
        """Read a frame's bytes; FEDFT-6005 when they are missing."""
        try:
            return self.frame_path(digest).read_bytes()
        except OSError as error:
            raise FedftError(
                Code.STORED_FILE_DAMAGED, f"cannot read the frame {digest[:12]}: {error.strerror}"
            ) from error

    # -- events --------------------------------------------------------------------------------------

    def add_event(self, run_id: str, kind: str, message: str) -> None:
        """Append one line to the run's history."""
        with self._transaction() as connection:
            connection.execute(insert(schema.events).values(_event(run_id, kind, message)))

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """Return the run's history, oldest first: time, kind and message of each event."""
        query = (
            select(schema.events.c.time, schema.events.c.kind, schema.events.c.message)
            .where(schema.events.c.run_id == run_id)
            .order_by(schema.events.c.sequence)
        )
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    @contextmanager
    def lock(self, run_id: str) -> Iterator[None]:
        """Hold the run for this process; the lock goes with the process, however it ends.

        Raises:
            FedftError: FEDFT-6007 when another process holds it.

        """
        path = self.folder / "locks" / run_id
        path.parent.mkdir(exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FedftError(Code.RUN_LOCKED, f"another process is carrying out {run_id}") from None
            yield

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            raise FedftError(
                Code.STORE_UNUSABLE, f"cannot write to the run store {self.folder}: {error.orig}"
            ) from error


def _set(connection: Connection, run_id: str, **values: str) -> None:
    connection.execute(update(schema.runs).where(schema.runs.c.id == run_id).values(**values))


def _event(run_id: str, kind: str, message: str) -> dict[str, str]:
    now = clock.now().isoformat(timespec="milliseconds")
    return {"run_id": run_id, "time": now, "kind": kind, "message": message}


def _runs_with_rounds() -> Any:
    last = (
        select(schema.rounds.c.run_id, func.max(schema.rounds.c.round).label("rounds"))
        .group_by(schema.rounds.c.run_id)
        .subquery()
    )
    return (
        select(
            schema.runs,
            func.coalesce(last.c.rounds, 0).label("rounds"),
            func.coalesce(func.json_extract(schema.runs.c.config, "$.rounds.total"), 0).label("total_rounds"),
        )
        .outerjoin(last, last.c.run_id == schema.runs.c.id)
        .order_by(schema.runs.c.created_at, schema.runs.c.id)
    )


def _is(run_id: str) -> Any:
    return schema.runs.c.id == run_id


def _files(connection: Connection, runs: Any) -> set[str]:
    """Return the digests of all states, residuals and frames of some runs."""
    rounds = schema.rounds.c
    query = select(rounds.state_digest, rounds.residual_digest, schema.runs.c.frame_digest)
    joined = query.select_from(schema.runs.outerjoin(schema.rounds, rounds.run_id == schema.runs.c.id))
    return {digest for row in connection.execute(joined.where(runs)) for digest in row if digest}


def _run(row: Any) -> RunRecord:
    return RunRecord(**dict(row))


def _round_values(record: RoundRecord) -> dict[str, Any]:
    return {
        "round": record.round,
        "state_digest": record.state_digest,
        "residual_digest": record.residual_digest,
        "seconds": record.seconds,
        "phases": record.phases,
        "privacy": record.privacy,
        "next_max_norm": record.next_max_norm,
        "averaging_error": record.averaging_error,
        "secagg": record.secagg,
        "committed_at": clock.now().isoformat(timespec="seconds"),
    }


def _insert_all(
    connection: Connection, table: Any, run_id: str, round_number: int | None, records: Iterable[Any]
) -> None:
    where = {"run_id": run_id} if round_number is None else {"run_id": run_id, "round": round_number}
    rows = [{**where, **vars(record)} for record in records]
    if rows:
        connection.execute(insert(table), rows)


def _select(connection: Connection, table: Any, run_id: str) -> list[dict[str, Any]]:
    order = [column for column in table.primary_key.columns if column.name != "run_id"]
    rows = connection.execute(select(table).where(table.c.run_id == run_id).order_by(*order)).mappings()
    return [{key: value for key, value in row.items() if key != "run_id"} for row in rows]


def _by_round(rows: list[dict[str, Any]], kind: Any) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for row in rows:
        found.setdefault(row.pop("round"), []).append(kind(**row))
    return found
