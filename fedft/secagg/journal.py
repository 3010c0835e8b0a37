"""What a client has committed itself to, written down before it is sent."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol


class Step(StrEnum):
    """What a client does at most once."""

    SHARED = "shared"
    """Shared out its secrets; subject: the session."""

    MASKED = "masked"
    """Masked a vector; subject: run and round."""

    SIGNED = "signed"
    """Signed a cohort with drop-outs; subject: run and round."""

    UNMASKED = "unmasked"
    """Gave its shares away; subject: run and round."""


class Journal(Protocol):
    """An append-only record of one identity at one site.

    It must outlive everything else of the client: a client that is restored from an old copy of its state,
    beside a journal that was not, still does nothing twice.
    """

    def find(self, step: Step, subject: bytes) -> bytes | None:
        """Give the content of the entry, or None."""

    def append(self, step: Step, subject: bytes, content: bytes) -> None:
        """Write an entry durably before returning; there is none with this step and subject yet."""


class MemoryJournal:
    """A journal that ends with its process: for simulations, where the clients end with it."""

    def __init__(self) -> None:
        self._entries: dict[tuple[Step, bytes], bytes] = {}

    def find(self, step: Step, subject: bytes) -> bytes | None:
        """Give the content of the entry, or None."""
        return self._entries.get((step, subject))

    def append(self, step: Step, subject: bytes, content: bytes) -> None:
        """Keep an entry; raises ValueError where there is one."""
        if (step, subject) in self._entries:
            raise ValueError(f"the journal has an entry {step} already")
        self._entries[step, subject] = content
