"""What a run's clients have spent of their privacy budgets, as they or the server's ledger state it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fedft.errors import Code
from fedft.statements import PrivacyStatement
from fedft.store import RoundRecord

EVERY_CLIENT = "any one client"
"""Stands for a client where the unit of privacy is a client."""


@dataclass(frozen=True)
class Spending:
    """One client's part in a private run, up to its last counted update or release.

    Attributes:
        client: its key.
        statement: its last one, of what the run has cost it so far; None before the first.
        steps: private steps of the counted updates.
        rounds: counted updates.
        spent_in: the round that its budget did not cover, 0 if there was none.

    """

    client: str
    statement: PrivacyStatement | None = None
    steps: int = 0
    rounds: int = 0
    spent_in: int = 0

    def after(self, statement: PrivacyStatement) -> Spending:
        """Add a release."""
        return replace(self, statement=statement, steps=self.steps + statement.steps, rounds=self.rounds + 1)


def spending(rounds: Iterable[RoundRecord]) -> list[Spending]:
    """Return a row for each client of a private run; none for a run without privacy.

    With client-level privacy there is one row for them all, from the server's own ledger.
    """
    rows: dict[str, Spending] = {}
    for record in rounds:
        if record.privacy is not None:
            rows[EVERY_CLIENT] = rows.get(EVERY_CLIENT, Spending(EVERY_CLIENT)).after(record.privacy)
        for update in record.updates:
            before = rows.get(update.client, Spending(update.client))
            if update.privacy is not None:
                rows[update.client] = before.after(update.privacy)
            elif update.code == Code.BUDGET_SPENT:
                rows[update.client] = replace(before, spent_in=record.round)
    return [rows[client] for client in sorted(rows)]
