"""What a run's clients have spent of their privacy budgets, as they stated it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fedft.store import RoundRecord
from fedft.store.records import BUDGET_SPENT, PRIVACY


@dataclass(frozen=True)
class Spending:
    """One client's part in a private run, up to its last counted update.

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
    """Return a row for each client of a private run; none for a run without privacy."""
    rows: dict[str, Spending] = {}
    for record in rounds:
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
            elif update.code == BUDGET_SPENT:
                rows[update.client] = replace(before, spent_in=record.round)
    return [rows[client] for client in sorted(rows)]
