"""Answering the steps of secure aggregation around a round of training."""

from __future__ import annotations

from collections.abc import Callable

from fedft.client.worker.context import InstructionContext
from fedft.client.worker.secagg_member import membership
from fedft.config import RunConfig
from fedft.errors import Code, FedftError
from fedft.secagg import decode
from fedft.secagg.client import Client
from fedft.secagg.encode import encode
from fedft.secagg.session import Session, smallest_threshold
from fedft.wire import InstructionKind, SecaggAnswer

Step = Callable[[Client, bytes], bytes]


def _share(client: Client, message: bytes) -> bytes:
    return encode(client.share(decode.decode_roster(message)))


def _receive(client: Client, message: bytes) -> bytes:
    client.receive(decode.decode_delivery(message))
    return b""


def _attest(client: Client, message: bytes) -> bytes:
    return encode(client.attest(decode.decode_cohort_request(message)))


def _unmask(client: Client, message: bytes) -> bytes:
    return encode(client.unmask(decode.decode_unmask_request(message)))


class AdvertiseHandler:
    """Begins a session: compares its terms with the run's, and sends signed keys."""

    def answer(self, context: InstructionContext) -> SecaggAnswer:
        """Return the advertisement; raises FEDFT-8829 in a run that is not masked, FEDFT-8809 (terms)."""
        require_masked(context.runtime.config)
        session = decode.decode_session(context.instruction.secagg)
        _check_terms(session, context)
        with membership(context, session) as client:
            message = encode(client.advertise())
        return _answer(context, message)


class StepHandler:
    """Answers a step of a session that was begun.

    Args:
        step: makes the answer's bytes of the client and the instruction's message.

    """

    def __init__(self, step: Step) -> None:
        self._step = step

    def answer(self, context: InstructionContext) -> SecaggAnswer:
        """Return the answer; raises FEDFT-8829 in a run that is not masked, and what the step refuses."""
        require_masked(context.runtime.config)
        with membership(context) as client:
            message = self._step(client, context.instruction.secagg)
        return _answer(context, message)


def secagg_handlers() -> dict[InstructionKind, AdvertiseHandler | StepHandler]:
    """Return the handler of each step but the masking, which the training does."""
    return {
        InstructionKind.ADVERTISE: AdvertiseHandler(),
        InstructionKind.SHARE: StepHandler(_share),
        InstructionKind.RECEIVE: StepHandler(_receive),
        InstructionKind.ATTEST: StepHandler(_attest),
        InstructionKind.UNMASK: StepHandler(_unmask),
    }


def require_masked(config: RunConfig) -> None:
    """Refuse a step of secure aggregation in a run without it (FEDFT-8829)."""
    if not config.secagg.required:
        raise FedftError(Code.SECAGG_STEP_UNEXPECTED, "the run is without secure aggregation")


def _check_terms(session: Session, context: InstructionContext) -> None:
    settings, at = context.runtime.config.secagg, context.instruction.round
    members = len(session.members)
    expected = Session(
        at.run_id,
        at.round,
        min(session.rounds, settings.rounds_per_keys),
        bytes.fromhex(context.instruction.model.frame_digest),
        session.members,
        settings.threshold or smallest_threshold(members),
    )
    if session != expected:
        raise FedftError(
            Code.SESSION_MISMATCH, "the session's run, rounds, frame or threshold are not those of the run"
        )


def _answer(context: InstructionContext, message: bytes) -> SecaggAnswer:
    return SecaggAnswer(context.instruction.round, context.identity.client, message)
