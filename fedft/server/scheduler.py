"""Carrying out the runs that the operator wants, one after the other, over restarts of the server."""

from __future__ import annotations

import logging
import threading
import traceback

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedft.config import RunConfig
from fedft.config.load import to_json
from fedft.coordinator.events import Event
from fedft.errors import Code, FedftError, Kind
from fedft.identity.registry import DesiredState, Registry
from fedft.server.event_stream import EventStream
from fedft.server.metrics import ServerMetrics
from fedft.store import RunRecord, RunStore
from fedft.transport.broker import Broker

_log = logging.getLogger("fedft.server")


class Scheduler(threading.Thread):
    """The thread that coordinates.

    What is wanted of a run is on disk before the call returns, so that a server that is killed goes on by
    itself with what was running, and leaves alone what was paused.

    Attributes:
        current: id of the run that is carried on now, empty for none.
        trouble: why nothing can be carried on at the moment, empty when something can.

    """

    def __init__(
        self,
        store: RunStore,
        registry: Registry,
        board: Broker,
        key: Ed25519PrivateKey,
        feed: EventStream,
        metrics: ServerMetrics,
        *,
        retry_seconds: float,
    ) -> None:
        super().__init__(name="runner", daemon=True)
        self._store, self._registry, self._board, self._key = store, registry, board, key
        self._feed, self._metrics, self._retry_seconds = feed, metrics, retry_seconds
        self._ending = threading.Event()
        self._wake = threading.Event()
        self.current = ""
        self.trouble = ""

    def is_well(self) -> bool:
        """Whether the thread lives and was not kept from its work the last time that it looked for some."""
        return self.is_alive() and not self.trouble

    # -- what the operator can ask -----------------------------------------------------------------------

    def begin(self, config: RunConfig) -> RunRecord:
        """Create a run; it starts when those before it are done."""
        run = self._store.create_run(config.name, to_json(config))
        self._registry.want(run.id, "run")
        self._wake.set()
        return run

    def pause(self, reference: str) -> RunRecord:
        """Stop carrying a run on; what is committed stays."""
        return self._turn(reference, "paused", allowed=("run",))

    def resume(self, reference: str) -> RunRecord:
        """Go on with a run that was paused or has failed, or try one at once that waits for something."""
        return self._turn(reference, "run", allowed=("paused", "run"))

    def stop(self, reference: str) -> RunRecord:
        """End a run for good."""
        return self._turn(reference, "stopped", allowed=("run", "paused"))

    def roll_back(self, reference: str, round_number: int) -> RunRecord:
        """Take back the rounds after a committed one of a run that rests; it stays paused."""
        run = self._store.run(reference)
        state = self.state(run, self._registry.wanted().get(run.id))
        if state in ("running", "ending", "waiting"):
            raise FedftError(
                Code.RUN_STATE_CONFLICT, f"run {run.id} is {state}", hint="pause it and wait until it rests"
            )
        self._registry.want(run.id, "paused")
        return self._store.roll_back(run.id, round_number)

    def state(self, run: RunRecord, wanted: DesiredState | None) -> str:
        """Say in one word how a run stands."""
        if run.status == "completed":
            return "completed"
        if run.id == self.current:
            return "running" if wanted == "run" else "ending"
        if wanted == "paused":
            return "failed" if run.status == "failed" else "paused"
        return "waiting" if wanted == "run" else "stopped"

    def end(self) -> None:
        """End the thread; the current run stays wanted."""
        self._ending.set()
        self._wake.set()

    # -- the thread --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Carry on until ended, whatever happens; what the loop does not know is logged and tried again."""
        while not self._ending.is_set():
            self._wake.clear()
            try:
                again = self._turn_once()
                self.trouble = ""
            except Exception as error:
                self.trouble = str(error)
                _log.exception("the coordinating loop goes on in %g s", self._retry_seconds)
                again = False
            if not again:
                self._wake.wait(self._retry_seconds)

    def _turn_once(self) -> bool:
        run = self._next()
        return run is not None and self._carry(run)

    def _next(self) -> RunRecord | None:
        wanted = self._registry.wanted()
        runs = self._store.runs()
        return next((r for r in runs if wanted.get(r.id) == "run" and r.status != "completed"), None)

    def _carry(self, run: RunRecord) -> bool:
        """Carry a run on; whether the next one may follow at once."""
        from fedft.coordinator.coordinator import Coordinator
        from fedft.transport.grid import GrpcGrid

        def observe(event: Event) -> None:
            self._metrics.observe(run.id, event)
            self._feed.publish(run.id, event)

        grid = GrpcGrid(self._board, self._key)
        self.current = run.id
        try:
            _log.info("run %s: going on after round %s", run.id, self._store.last_round(run.id))
            Coordinator(
                grid, self._store, run, observe=observe, stopped=lambda: self._unwanted(run.id)
            ).execute()
            _log.info("run %s is complete", run.id)
            return True
        except KeyboardInterrupt:
            _log.info("run %s is interrupted", run.id)
            return True
        except FedftError as error:
            return self._failed(run, error)
        except Exception as error:
            traceback.print_exc()
            return self._failed(run, FedftError(Code.COORDINATOR_FAILED, f"{type(error).__name__}: {error}"))
        finally:
            grid.close()
            self.current = ""
            self._feed.pause(run.id)

    def _failed(self, run: RunRecord, error: FedftError) -> bool:
        _log.error("run %s: %s", run.id, error)
        self._store.add_event(run.id, "stopped-by-error", str(error))
        if error.code.kind is Kind.RETRY:
            self._store.set_status(run.id, "interrupted", str(error))
            return False
        self._registry.want(run.id, "paused")
        return True

    def _unwanted(self, run_id: str) -> bool:
        return self._ending.is_set() or self._registry.wanted().get(run_id) != "run"

    def _turn(self, reference: str, wanted: DesiredState, *, allowed: tuple[DesiredState, ...]) -> RunRecord:
        run = self._store.run(reference)
        present = self._registry.wanted().get(run.id, "stopped")
        if run.status == "completed" or present not in allowed:
            state = self.state(run, present)
            raise FedftError(
                Code.RUN_STATE_CONFLICT,
                f"run {run.id} is {state}, so it cannot become {'running' if wanted == 'run' else wanted}",
            )
        self._registry.want(run.id, wanted)
        self._wake.set()
        return run
