"""Whatever reading a peer's message raises, as an error of that peer alone."""

from __future__ import annotations

import logging

from fedft.errors import Code, FedftError

_log = logging.getLogger("fedft")


def as_peer_error(error: Exception) -> FedftError:
    """Return the error for the peer's record: itself, or FEDFT-6110 for one that has no code of its own.

    The traceback of the latter goes to the log; the message holds its kind and text, cut to 300 characters.
    """
    if isinstance(error, FedftError):
        return error
    _log.error("a peer's message raised an error without a code", exc_info=error)
    return FedftError(
        Code.ANSWER_UNREADABLE, f"reading the answer failed: {type(error).__name__}: {error}"[:300]
    )
