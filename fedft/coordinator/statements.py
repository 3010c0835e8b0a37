"""What clients state about the privacy of their updates. The server records it; it cannot check it."""

from __future__ import annotations

from fedft.config.schema import PrivacySection
from fedft.errors import Code, FedftError
from fedft.statements import PrivacyMechanism, PrivacyStatement, PrivacyUnit
from fedft.store.records import UNCLIPPED
from fedft.wire import Update


def stated_privacy(update: Update, privacy: PrivacySection) -> PrivacyStatement | None:
    """Return an update's privacy statement, None in a run whose updates are not private.

    Raises:
        FedftError: FEDFT-5017 where a private run's update states nothing, or something else than was asked.

    """
    statement = update.privacy
    if privacy.mechanism == "none":
        return None
    if privacy.mechanism == "client":
        _require_bit(update, privacy)
        return None
    if statement is None:
        raise _refused("states nothing about its privacy, and the run is private")
    kind = (statement.mechanism, statement.unit)
    if kind != (PrivacyMechanism.DP_SGD, PrivacyUnit.EXAMPLE):
        raise _refused(f"states {statement.mechanism} for one {statement.unit}")
    asked_for = {"delta": privacy.delta, "max_norm": privacy.max_grad_norm}
    for name, asked in asked_for.items():
        stated = getattr(statement, name)
        if stated != asked:
            raise _refused(f"states {name} {stated:g}, the run asks for {asked:g}")
    return statement


def _require_bit(update: Update, privacy: PrivacySection) -> None:
    if privacy.clip_quantile and update.metrics.get(UNCLIPPED) not in (0.0, 1.0):
        raise FedftError(
            Code.PRIVACY_STATEMENT_MISMATCH,
            "the update does not say whether it was clipped",
            hint=f'its site must let the metric "{UNCLIPPED}" out',
        )


def _refused(what: str) -> FedftError:
    return FedftError(
        Code.PRIVACY_STATEMENT_MISMATCH, f"the update {what}", hint="the client runs another version of fedft"
    )
