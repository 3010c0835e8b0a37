"""FedftError through gRPC: the code travels in the status's details."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc

from fedft.errors import FedftError

UNREACHABLE = "FEDFT-7030"
_CODE = re.compile(r"^(FEDFT-\d{4}) (.*)$", re.DOTALL)
_HINT = "\x1f"
_TLS_WORDS = ("handshake", "certificate", "ssl", "tls", "peer name")
_CLASSES = {
    "FEDFT-7032": grpc.StatusCode.PERMISSION_DENIED,
    "FEDFT-7033": grpc.StatusCode.PERMISSION_DENIED,
    "FEDFT-7034": grpc.StatusCode.ALREADY_EXISTS,
    "FEDFT-7036": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "FEDFT-7037": grpc.StatusCode.DATA_LOSS,
    "FEDFT-7038": grpc.StatusCode.FAILED_PRECONDITION,
    "FEDFT-6207": grpc.StatusCode.PERMISSION_DENIED,
    "FEDFT-6212": grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def abort(context: Any, error: FedftError) -> NoReturn:
    """End a call with an error; the other side's ``raised`` makes the same error of it."""
    status = _CLASSES.get(error.code, grpc.StatusCode.INVALID_ARGUMENT)
    context.abort(status, f"{error.code} {error.message[:2000]}{_HINT}{error.hint[:500]}")
    raise AssertionError("abort returned")


@contextmanager
def reporting(context: Any) -> Iterator[None]:
    """Turn a FedftError inside into the call's status."""
    try:
        yield
    except FedftError as error:
        abort(context, error)


@contextmanager
def raised(address: str) -> Iterator[None]:
    """Turn a failed call into a FedftError.

    Raises:
        FedftError: the server's own error; FEDFT-7031 when TLS failed; FEDFT-7030 for everything else.

    """
    try:
        yield
    except grpc.RpcError as error:
        raise as_error(error, address) from None


def as_error(error: Any, address: str) -> FedftError:
    """Return the FedftError that a failed call stands for."""
    details = str(error.details() or "")
    match = _CODE.match(details)
    if match:
        message, _, hint = match[2].partition(_HINT)
        return FedftError(match[1], message, hint=hint)
    shown = " ".join(details.split())[:300]
    if any(word in details.lower() for word in _TLS_WORDS):
        return FedftError(
            "FEDFT-7031",
            f"{address} and this machine do not accept each other's certificates: {shown}",
            hint="check the certificates' dates, their authority, and the host name in the address",
        )
    return FedftError(
        UNREACHABLE,
        f"cannot reach {address}: {shown or error.code().name}",
        hint="is the server running, the address right, and does it know this certificate's authority?",
    )
