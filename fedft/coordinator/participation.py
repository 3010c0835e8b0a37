"""What became of each client's last update."""

from __future__ import annotations

from collections.abc import Iterable

from fedft.errors import Code
from fedft.store import RoundRecord, UpdateRecord
from fedft.wire import Acknowledgement


class Participation:
    """Remembers, for every client, the last round in which it was asked and whether its update counted.

    Attributes:
        spent: clients whose privacy budget did not cover a round; they are not asked again.

    """

    def __init__(self) -> None:
        self._last: dict[str, Acknowledgement] = {}
        self.spent: set[str] = set()

    @classmethod
    def of(cls, rounds: Iterable[RoundRecord]) -> Participation:
        """Read it from the committed rounds."""
        participation = cls()
        for record in rounds:
            if record.round:
                participation.note(record.round, record.updates)
        return participation

    def note(self, number: int, updates: Iterable[UpdateRecord]) -> None:
        """Take down a committed round."""
        updates = list(updates)
        self.note_spent(updates)
        for update in updates:
            self._last[update.client] = Acknowledgement(number, number, update.status == "accepted")

    def note_spent(self, updates: Iterable[UpdateRecord]) -> bool:
        """Take down whose budget did not cover a round; return whether there is anyone new."""
        before = len(self.spent)
        self.spent |= {update.client for update in updates if update.code == Code.BUDGET_SPENT}
        return len(self.spent) > before

    def acknowledgements(self) -> dict[str, Acknowledgement]:
        """Return the verdict on each client's last update."""
        return dict(self._last)

    def asked(self, client: str) -> bool:
        """Whether the client was asked in any committed round."""
        return client in self._last

    def took_part(self, client: str, number: int) -> bool:
        """Whether the client's update of round ``number`` counted, so that it holds that round's state."""
        last = self._last.get(client)
        return last is not None and last.accepted and last.round == number
