"""What happened to records on their way to samples: counts that add over clients."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataReport:
    """Counts of one preparation; ``+`` joins those of several clients.

    Attributes:
        records: records read.
        samples: samples that came of them.
        truncated: samples cut to max_length tokens.
        dropped: records left out because they were longer than max_length.
        empty: records left out because nothing was left to learn (no text, or no loss token).
        tokens: tokens of all samples, unpadded.
        longest: tokens of the longest record, before anything was cut.

    """

    records: int = 0
    samples: int = 0
    truncated: int = 0
    dropped: int = 0
    empty: int = 0
    tokens: int = 0
    longest: int = 0

    def __add__(self, other: DataReport) -> DataReport:
        return DataReport(
            self.records + other.records,
            self.samples + other.samples,
            self.truncated + other.truncated,
            self.dropped + other.dropped,
            self.empty + other.empty,
            self.tokens + other.tokens,
            max(self.longest, other.longest),
        )

    def __str__(self) -> str:
        counts = {
            "truncated": self.truncated,
            "too long, dropped": self.dropped,
            "empty, dropped": self.empty,
        }
        losses = "".join(f", {count} {what}" for what, count in counts.items() if count)
        return f"{self.samples} of {self.records} records{losses}; longest {self.longest} tokens"
