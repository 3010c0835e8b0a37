"""FedftError through gRPC: the code travels in the status's details."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc

from fedft.errors import Code, FedftError, Kind

_CODE = re.compile(r"^(FEDFT-[0-9]{4}) (.*)$", re.DOTALL)
_HINT = "\x1f"
# A handshake that was cut or timed out is a matter of the line, not of certificates.
_TLS_WORDS = ("certificate", "ssl_error_ssl", "peer name")
_STATUS = {
    Kind.RETRY: grpc.StatusCode.UNAVAILABLE,
    Kind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Kind.USAGE: grpc.StatusCode.INVALID_ARGUMENT,
    Kind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Kind.DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Kind.FINAL: grpc.StatusCode.FAILED_PRECONDITION,
}


def abort(context: Any, error: FedftError) -> NoReturn:
    """End a call with an error; the other side's ``raised`` makes the same error of it."""
    text = f"{error.code} {error.message[:2000]}{_HINT}{error.hint[:500]}"
    context.abort(_STATUS[error.code.kind], text)
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
            Code.TLS_FAILED,
            f"{address} and this machine do not accept each other's certificates: {shown}",
            hint="check the certificates' dates, their authority, and the host name in the address",
        )
    return FedftError(
        Code.SERVER_UNREACHABLE,
        f"cannot reach {address}: {shown or error.code().name}",
        hint="is the server running, the address right, and does it know this certificate's authority?",
    )
