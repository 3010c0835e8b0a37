"""The server's end of the admin service: who may ask what, and every change in the audit log."""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fedft
from fedft import clock
from fedft.config.load import from_json
from fedft.errors import Code, FedftError
from fedft.identity.authority import Authority
from fedft.identity.documents import read_request
from fedft.identity.enrolment import enroll
from fedft.identity.keys import load_certificate, node_id
from fedft.identity.members import Member, Role
from fedft.identity.registry import MemberRecord, Registry
from fedft.server.admin import answers
from fedft.server.admin.answers import (
    SCHEMA_VERSION,
    Answer,
    AuditLogEntries,
    ConfigCheck,
    Connection,
    Enrolled,
    Incident,
    Incidents,
    MemberDetail,
    Members,
    MemberState,
    Part,
    RoundDetail,
    RunDetail,
    RunEvent,
    Runs,
    RunState,
)
from fedft.server.admin.audit_log import AuditLog
from fedft.server.admin.documents import documents
from fedft.server.event_stream import EventStream, event_to_json
from fedft.server.scheduler import Scheduler
from fedft.server.settings import ServerSettings
from fedft.simulation.preflight import dry_run
from fedft.store import RoundRecord, RunRecord, RunStore
from fedft.transport.broker import Broker
from fedft.transport.open_calls import REQUEST, WATCH, OpenCalls
from fedft.transport.rpc_errors import reporting
from fedft.transport.tls import peer_fingerprint
from fedft.transport.transfer import pieces
from fedft.transport.upload_store import UploadStore
from fedft.wire.v1 import admin_pb2 as pb
from fedft.wire.v1.admin_pb2_grpc import AdminServicer

_READ: tuple[Role, ...] = ("viewer", "operator")
_CHANGE: tuple[Role, ...] = ("operator",)


class AdminService(AdminServicer):  # type: ignore[misc]
    """Answers viewers and operators.

    Every change is in the audit log before it is made: a change that cannot be logged is not made.
    """

    def __init__(
        self,
        settings: ServerSettings,
        registry: Registry,
        authority: Authority,
        store: RunStore,
        board: Broker,
        runner: Scheduler,
        feed: EventStream,
        audit: AuditLog,
        calls: OpenCalls,
        inbox: UploadStore,
    ) -> None:
        self._settings, self._registry, self._authority = settings, registry, authority
        self._store, self._board, self._runner = store, board, runner
        self._feed, self._audit, self._calls, self._inbox = feed, audit, calls, inbox
        self._exporting = threading.Lock()
        self._started = clock.timestamp()

    # -- looking -----------------------------------------------------------------------------------------

    def Health(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """Say that the server is there, and what it is doing."""
        return self._read(context, self._health)

    def ListClients(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """List all members and who is connected."""
        return self._read(context, lambda: Members(clients=self._members()))

    def ShowClient(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """Show one member, its incidents and its part in the last rounds."""
        return self._read(context, lambda: self._client(request.name))

    def ListRuns(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """List all runs."""
        return self._read(context, lambda: Runs(runs=[self._run(run) for run in self._store.runs()]))

    def ShowRun(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """Show one run with its rounds and events."""
        return self._read(context, lambda: self._whole_run(request.run))

    def ShowRound(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """Show one committed round."""
        number = request.round if request.HasField("round") else None
        return self._read(context, lambda: self._round(request.run, number))

    def ReadAuditLog(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """Verify the audit log and return its last entries."""
        return self._read(context, lambda: AuditLogEntries(entries=self._audit.entries(request.last)))

    def ReadIncidents(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """Return what was refused at the link."""
        return self._read(context, lambda: Incidents(incidents=self._incidents(request.last)))

    def ValidateConfig(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """Try a configuration against this server's models and data, without starting anything."""
        return self._read(context, lambda: ConfigCheck(**dry_run(from_json(request.config_json))))

    def WatchRun(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """Send the run as it stands, then its events until it ends or is interrupted."""
        with reporting(context), self._allowed(context, _READ, WATCH):
            run = self._store.run(request.run)
            yield from self._watched(context, run)

    def _watched(self, context: Any, run: RunRecord) -> Iterator[Any]:
        with self._feed.mailbox(run.id) as mailbox:
            yield from documents(self._whole_run(run.id).model_dump_json())
            while context.is_active():
                self._require(context, _READ)
                settled = self._settled(run.id)
                try:
                    event = mailbox.get(timeout=0.05 if settled else 1.0)
                except queue.Empty:
                    if settled:
                        break
                    continue
                if event is not None:
                    yield from documents(event_to_json(event))
        yield from documents(self._run(self._store.run(run.id)).model_dump_json())

    # -- changing ----------------------------------------------------------------------------------------

    def Enroll(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Enroll the sender of a request and return its certificate."""
        return self._change(context, lambda who: self._enroll(who, request))

    def RevokeClient(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take a key back and end its session."""
        return self._change(context, lambda who: self._revoke(who, request.name, request.reason))

    def StartRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Start a run, or queue it behind those that go on."""
        return self._change(context, lambda who: self._start(who, request.config_json))

    def PauseRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Interrupt a run after its last committed round."""
        return self._change(context, lambda who: self._turn(who, "pause", request.run, self._runner.pause))

    def ResumeRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Go on with a run that was paused or has failed."""
        return self._change(context, lambda who: self._turn(who, "resume", request.run, self._runner.resume))

    def StopRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        """End a run for good."""
        return self._change(context, lambda who: self._turn(who, "stop", request.run, self._runner.stop))

    def RollBackRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take back the rounds after a committed one of a run that rests."""
        number = request.round
        return self._change(
            context,
            lambda who: self._turn(
                who,
                f"roll back to round {number} of",
                request.run,
                lambda run: self._runner.roll_back(run, number),
            ),
        )

    def ExportRun(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """Send the files of an adapter or a merged model."""
        with (
            reporting(context),
            self._allowed(context, _CHANGE, REQUEST) as who,
            self._exporting,
            tempfile.TemporaryDirectory() as folder,
        ):
            run = self._store.run(request.run)
            number = request.round if request.HasField("round") else None
            self._audit.write(who, "export", run=run.id, round=number, kind=request.kind)
            out = self._export(run, Path(folder) / "out", request.kind, number)
            for path in sorted(path for path in out.rglob("*") if path.is_file()):
                yield pb.ExportPart(path=path.relative_to(out).as_posix())
                for piece in pieces(path.read_bytes()):
                    yield pb.ExportPart(data=piece)

    # -- parts -------------------------------------------------------------------------------------------

    def _require(self, context: Any, roles: tuple[Role, ...]) -> Member:
        return self._registry.require(peer_fingerprint(context), *roles)

    @contextmanager
    def _allowed(self, context: Any, roles: tuple[Role, ...], kind: str) -> Iterator[str]:
        """Hold one of the caller's calls open and give the caller's name, if the role allows it."""
        member = self._require(context, roles)
        with self._calls.one_of(member.fingerprint, kind, context.cancel):
            yield member.name

    def _read(self, context: Any, answer: Callable[[], Answer]) -> Iterator[Any]:
        with reporting(context), self._allowed(context, _READ, REQUEST):
            yield from documents(answer().model_dump_json())

    def _change(self, context: Any, answer: Callable[[str], Answer]) -> Any:
        with reporting(context), self._allowed(context, _CHANGE, REQUEST) as who:
            found = answer(who)
            return pb.Document(schema_version=SCHEMA_VERSION, json=found.model_dump_json())

    def _health(self) -> answers.Health:
        settings = self._settings
        certificate = load_certificate(settings.tls.certificate)
        return answers.Health(
            status=self._runner.trouble or "ok",
            version=fedft.__version__,
            up_seconds=clock.timestamp() - self._started,
            connected=sorted(connection.name for connection in self._board.sessions()),
            current_run=self._runner.current,
            certificate_expires=certificate.not_valid_after_utc.isoformat(timespec="seconds"),
            link=settings.link,
            admin=settings.admin,
        )

    def _members(self) -> list[MemberState]:
        return [MemberState(**self._member(record)) for record in self._registry.members()]

    def _member(self, record: MemberRecord) -> dict[str, Any]:
        streams = {stream.node: stream for stream in self._board.sessions()}
        stream = streams.get(node_id(record.fingerprint)) if record.role == "client" else None
        connection = (
            Connection(**{name: getattr(stream, name) for name in Connection.model_fields})
            if stream
            else None
        )
        return {**asdict(record), "connected": connection is not None, "connection": connection}

    def _client(self, name: str) -> MemberDetail:
        record = self._registry.member(name)
        parts = [
            Part(run=run.id, round=committed.round, update=update)
            for run in self._store.runs()[-3:]
            for committed in self._store.rounds(run.id)[-10:]
            for update in committed.updates
            if update.client == name
        ]
        incidents = [item for item in self._incidents() if item.member == name][-20:]
        return MemberDetail(**self._member(record), incidents=incidents, rounds=parts)

    def _incidents(self, last: int = 0) -> list[Incident]:
        return [Incident(**item) for item in self._registry.incidents(last)]

    def _run(self, run: RunRecord) -> RunState:
        return RunState(**self._run_values(run))

    def _run_values(self, run: RunRecord) -> dict[str, Any]:
        state = self._runner.state(run, self._registry.wanted().get(run.id))
        return {**asdict(run), "state": state}

    def _whole_run(self, reference: str) -> RunDetail:
        run = self._store.run(reference)
        events = [RunEvent(**event) for event in self._store.events(run.id)]
        return RunDetail(**self._run_values(run), committed=self._store.rounds(run.id), events=events)

    def _round(self, reference: str, number: int | None) -> RoundDetail:
        run = self._store.run(reference)
        rounds: list[RoundRecord] = self._store.rounds(run.id)
        found = [record for record in rounds if number is None or record.round == number][-1:]
        if not found:
            raise FedftError(Code.ROUND_NOT_COMMITTED, f"round {number} of {run.id} is not committed")
        return RoundDetail(run=run.id, record=found[0])

    def _settled(self, run_id: str) -> bool:
        run = self._store.run(run_id)
        state = self._runner.state(run, self._registry.wanted().get(run_id))
        return state in ("completed", "failed", "paused", "stopped")

    def _enroll(self, who: str, request: Any) -> Enrolled:
        role: Role | None = request.role or None
        if role not in (None, "client", "viewer", "operator"):
            raise FedftError(
                Code.ROLE_NOT_ALLOWED, f"{request.role[:40]!r} is no role: client, viewer or operator"
            )
        name = read_request(request.request).name
        self._audit.write(who, "enroll", name=name, role=role or "as before", replace=request.replace)
        record, certificate, replaced = enroll(
            self._registry, self._authority, request.request, role, replace=request.replace
        )
        for old in replaced:
            self._expel(old, "replaced by a new key", but=who)
        return Enrolled(**self._member(record), certificate=certificate)

    def _revoke(self, who: str, name: str, reason: str) -> MemberState:
        if name == who:
            raise FedftError(
                Code.ROLE_NOT_ALLOWED,
                "an operator cannot revoke the key in use",
                hint="let another operator do it",
            )
        self._registry.member(name)
        self._audit.write(who, "revoke", name=name, reason=reason)
        record = self._registry.revoke(name, reason or "no reason given")
        self._expel(record, record.reason)
        return MemberState(**self._member(record))

    def _expel(self, record: MemberRecord, reason: str, but: str = "") -> None:
        """End all that a key has open, and delete what it has sent, but keep the calls of ``but``."""
        error = FedftError(Code.KEY_REVOKED, f"the key of {record.name} was revoked: {reason}")
        self._board.expel(node_id(record.fingerprint), error)
        if record.name != but:
            self._calls.end(record.fingerprint)
        self._inbox.forget_node(node_id(record.fingerprint))

    def _start(self, who: str, config_json: str) -> RunState:
        config = from_json(config_json)
        place = config.store.model_copy(update={"path": str(self._settings.store_folder)})
        config = config.model_copy(update={"store": place})
        self._audit.write(who, "start run", name=config.name)
        run = self._runner.begin(config)
        return self._run(run)

    def _turn(self, who: str, verb: str, reference: str, turn: Callable[[str], RunRecord]) -> RunState:
        run = self._store.run(reference)
        self._audit.write(who, f"{verb} run", run=run.id)
        return self._run(turn(run.id))

    def _export(self, run: RunRecord, out: Path, kind: str, number: int | None) -> Path:
        from fedft.simulation.checkpoints import export_run

        if kind not in ("peft", "merged"):
            raise FedftError(Code.RUN_STATE_CONFLICT, f"{kind[:40]!r} cannot be exported: peft or merged")
        return export_run(self._store, run, out, kind, number)  # type: ignore[arg-type]
