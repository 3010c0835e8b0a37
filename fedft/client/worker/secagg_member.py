"""A client's part in a session of secure aggregation, kept on disk between its steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedft.client.site.folders import checked_name
from fedft.client.site.secagg import secagg_party
from fedft.client.worker.context import InstructionContext
from fedft.client.worker.secagg_journal import DurableJournal
from fedft.errors import Code, FedftError
from fedft.files import write_atomically
from fedft.secagg.client import Client
from fedft.secagg.client_state import ClientState
from fedft.secagg.decode import decode_session
from fedft.secagg.encode import encode
from fedft.secagg.session import Session


@contextmanager
def membership(context: InstructionContext, begin: Session | None = None) -> Iterator[Client]:
    """Open the client's part in its session; its state is stored before what the block made can leave.

    A run has one session at a time: a new one takes the place of the one before, whose secrets go with it.

    Args:
        context: of the instruction.
        begin: a session to take part in; None to go on with the one that was begun.

    Raises:
        FedftError: FEDFT-8803 to 8805, 8813 (the session's members), FEDFT-8810 when none was begun,
            FEDFT-8825 (a damaged state), FEDFT-7055 (the disk).

    """
    identity = context.identity
    folder = identity.folders.state / "secagg" / checked_name(identity.client)
    path = folder / f"{checked_name(context.instruction.round.run_id)}.session"
    party, session, state = secagg_party(identity), begin, None
    if path.exists():
        stored, known = _read(path)
        if begin is None or begin == stored:
            session, state = stored, known
    if session is None:
        raise FedftError(Code.OUT_OF_TURN, "this client takes part in no session of this run")
    with DurableJournal(folder / "journal.sqlite", create=state is None) as journal:
        client = Client(
            session,
            party.key,
            party.identities,
            journal,
            smallest_cohort=party.smallest_cohort,
            state=state,
        )
        yield client
        _write(path, client)


def _write(path: Path, client: Client) -> None:
    facts = {
        "session": encode(client.session).hex(),
        "state": client.state.to_bytes(client.session).decode(),
    }
    try:
        write_atomically(path, json.dumps(facts).encode())  # readable by its owner alone
    except OSError as error:
        raise FedftError(Code.SITE_DISK_UNWRITABLE, f"cannot write {path}: {error.strerror}") from error


def _read(path: Path) -> tuple[Session, ClientState]:
    try:
        facts = json.loads(path.read_bytes())
        session = decode_session(bytes.fromhex(facts["session"]))
        return session, ClientState.from_bytes(facts["state"].encode(), session)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise FedftError(
            Code.SECAGG_STATE_DAMAGED, f"{path} is not the state of a session: {error}"
        ) from None
