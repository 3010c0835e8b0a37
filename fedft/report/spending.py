"""What a run's clients have spent of their privacy budgets, as they or the server's ledger state it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fedft.errors import Code
from fedft.store import RoundRecord
from fedft.store.records import PRIVACY

EVERY_CLIENT = "any one client"
"""Stands for a client where the unit of privacy is a client."""


@dataclass(frozen=True)
class Spending:
    """One client's part in a private run, up to its last counted update or release.

    Attributes:
        client: its key.
        epsilon: spent in the run so far, lost and repeated rounds included.
        delta: the δ of the statement.
        noise_multiplier: of its steps.
        sample_rate: of its batches.
        steps: private steps of the counted updates.
        rounds: counted updates.
        spent_in: the round that its budget did not cover, 0 if there was none.

    """

    client: str
    epsilon: float = 0.0
    delta: float = 0.0
    noise_multiplier: float = 0.0
    sample_rate: float = 0.0
    steps: int = 0
    rounds: int = 0
    spent_in: int = 0


def spending(rounds: Iterable[RoundRecord]) -> list[Spending]:
    """Return a row for each client of a private run; none for a run without privacy.

    With client-level privacy there is one row for them all, from the server's own ledger.
    """
    rows: dict[str, Spending] = {}
    for record in rounds:
        if record.privacy:
            rows[EVERY_CLIENT] = _of_the_server(record, rows.get(EVERY_CLIENT))
        for update in record.updates:
            before = rows.get(update.client, Spending(update.client))
            stated = {
                name.removeprefix(PRIVACY): value
                for name, value in update.metrics.items()
                if name.startswith(PRIVACY)
            }
            if update.status == "accepted" and stated:
                rows[update.client] = Spending(
                    update.client,
                    epsilon=stated["epsilon"],
                    delta=stated["delta"],
                    noise_multiplier=stated["noise_multiplier"],
                    sample_rate=stated["sample_rate"],
                    steps=before.steps + int(stated["steps"]),
                    rounds=before.rounds + 1,
                )
            elif update.code == Code.BUDGET_SPENT:
                rows[update.client] = replace(before, spent_in=record.round)
    return [rows[client] for client in sorted(rows)]


def _of_the_server(record: RoundRecord, before: Spending | None) -> Spending:
    count = (before.rounds if before else 0) + 1
    return Spending(
        EVERY_CLIENT,
        epsilon=record.privacy["epsilon"],
        delta=record.privacy["delta"],
        noise_multiplier=record.privacy["noise_multiplier"],
        sample_rate=record.privacy["sample_rate"],
        steps=count,
        rounds=count,
    )
