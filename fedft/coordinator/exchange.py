"""Sending one request to each of several clients and taking the answers as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from flwr.app import Message
from flwr.serverapp import Grid

from fedft import clock
from fedft.errors import Code, FedftError
from fedft.transport.flower_messages import OwnGrid, new_message
from fedft.transport.flower_records import pack, unpack
from fedft.wire.peer_error import as_peer_error

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1


@dataclass(frozen=True)
class Request:
    """An envelope for one client.

    ``bytes_down`` and ``bytes_setup`` count what all attempts have sent so far, the setup apart.
    """

    client: str
    node_id: int
    envelope: bytes
    attempt: int = 0
    bytes_down: int = 0
    bytes_setup: int = 0


@dataclass(frozen=True)
class Answer:
    """What came of a request: an envelope, or ``failure`` says why not. ``seconds`` since it was sent."""

    request: Request
    envelope: bytes = b""
    failure: str = ""
    late: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class ExchangeOptions:
    """How long an exchange may take, how often a failed client is asked again, and who may stop it."""

    message_type: str
    group: str
    deadline: float
    retries: int = 0
    stopped: Callable[[], bool] = lambda: False


def exchange(
    grid: Grid,
    requests: Sequence[Request],
    terms: ExchangeOptions,
    follow_up: Callable[[Answer], Request | None] = lambda _answer: None,
) -> Iterator[Answer]:
    """Send all requests and yield each client's final answer, in the order in which they arrive.

    A client whose process failed is asked again up to ``retries`` times. ``follow_up`` may turn an
    answer into a further request to the same client (it lacks something); only what it returns None
    for is yielded. Clients that have not answered by the deadline are yielded as late; the messages'
    time to live is the deadline, so that no node works on a closed round.

    Raises:
        FedftError: FEDFT-7002 when the carrier refuses messages, and what the carrier itself raises.
        KeyboardInterrupt: when ``stopped`` says so.

    """
    start = clock.monotonic()
    pending = _push(grid, requests, terms, terms.deadline)
    pause = _SHORTEST_PAUSE
    while pending and clock.monotonic() - start < terms.deadline:
        if terms.stopped():
            raise KeyboardInterrupt
        replies = list(grid.pull_messages(list(pending)))
        for reply in replies:
            request = pending.pop(reply.metadata.reply_to_message_id, None)
            if request is None:
                continue
            answer = _answer(request, reply, clock.monotonic() - start)
            again = _again(answer, terms.retries) if answer.failure else follow_up(answer)
            if again is None:
                yield answer
            else:
                pending |= _push(grid, [again], terms, terms.deadline - (clock.monotonic() - start))
        pause = _SHORTEST_PAUSE if replies else min(2 * pause, _LONGEST_PAUSE)
        if pending and not replies:
            time.sleep(pause)
    if isinstance(grid, OwnGrid):
        grid.drop(pending)
    for request in pending.values():
        failure = f"no answer within {terms.deadline:g} s"
        yield Answer(request, failure=failure, late=True, seconds=terms.deadline)


def _push(grid: Grid, requests: Sequence[Request], terms: ExchangeOptions, ttl: float) -> dict[str, Request]:
    # A list, never a generator: Flower's HTTP grid iterates twice and would send nothing.
    messages = [
        new_message(
            grid,
            pack(request.envelope),
            terms.message_type,
            request.node_id,
            group=terms.group,
            ttl=max(ttl, 0.1),
        )
        for request in requests
    ]
    ids = list(grid.push_messages(messages))
    if len(ids) != len(messages):
        raise FedftError(Code.MESSAGES_NOT_SENT, f"the carrier took {len(ids)} of {len(messages)} messages")
    return dict(zip(ids, requests, strict=True))


def _answer(request: Request, reply: Message, seconds: float) -> Answer:
    # An error reply may name the server as its sender, so only reply_to identifies the client.
    if reply.has_error():
        reason = f"{reply.error.reason or 'no reason given'} (Flower error {reply.error.code})"
        return Answer(request, failure=" ".join(reason.split())[:300], seconds=seconds)
    try:
        return Answer(request, envelope=unpack(reply.content), seconds=seconds)
    except Exception as error:
        return Answer(request, failure=str(as_peer_error(error)), seconds=seconds)


def _again(answer: Answer, retries: int) -> Request | None:
    request = answer.request
    if request.attempt >= retries:
        return None
    size = len(request.envelope)
    return replace(request, attempt=request.attempt + 1, bytes_down=request.bytes_down + size)
