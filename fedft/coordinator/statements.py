"""What clients state about the privacy of their updates. The server records it; it cannot check it."""

from __future__ import annotations

from fedft.errors import Code, FedftError
from fedft.statements import PrivacyMechanism, PrivacyStatement, PrivacyUnit
from fedft.wire import Update


def example_level_statement(update: Update, *, delta: float, max_norm: float) -> PrivacyStatement:
    """Return what an update states that was made private at its client, for one example.

    Raises:
        FedftError: FEDFT-5017 where it states nothing, or something else than was asked for.

    """
    statement = update.privacy
    if statement is None:
        raise _refused("states nothing about its privacy, and the run is private")
    if (statement.mechanism, statement.unit) != (PrivacyMechanism.DP_SGD, PrivacyUnit.EXAMPLE):
        raise _refused(f"states {statement.mechanism} for one {statement.unit}")
    for name, asked in (("delta", delta), ("max_norm", max_norm)):
        stated = getattr(statement, name)
        if stated != asked:
            raise _refused(f"states {name} {stated:g}, the run asks for {asked:g}")
    return statement


def _refused(what: str) -> FedftError:
    return FedftError(
        Code.PRIVACY_STATEMENT_MISMATCH, f"the update {what}", hint="the client runs another version of fedft"
    )
