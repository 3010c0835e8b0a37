"""What a run's records say: quality, bytes, time and participation as plain tables."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedft.statements import PrivacyStatement
from fedft.store import EvaluationRecord, RoundRecord, UpdateRecord

PREFERRED = ("exact_match", "accuracy", "perplexity", "loss")
PHASES = ("model", "clients", "frame", "training", "aggregation", "evaluation")
STATUSES = ("accepted", "refused", "failed", "late")


_SCOPES = {
    "pooled": "central, on pooled data",
    "pooled, joined batches": "central, batches of all clients joined",
    "public": "public records alone",
}


@dataclass(frozen=True)
class Traffic:
    """Bytes: updates up, states down, and ``setup`` (configuration and frame), which goes down too."""

    up: int = 0
    down: int = 0
    setup: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.up + other.up, self.down + other.down, self.setup + other.setup)

    @property
    def total(self) -> int:
        """All bytes in both directions."""
        return self.up + self.down + self.setup


@dataclass(frozen=True)
class Change:
    """One group's metric before training and in the last evaluated round."""

    group: str
    num_examples: int
    before: float | None
    after: float | None


@dataclass(frozen=True)
class Comparison:
    """One way of training beside the federation: its metric on each group, in the order of the groups."""

    name: str
    values: tuple[float | None, ...]


def traffic(updates: Iterable[UpdateRecord]) -> Traffic:
    """Add up what went over the wire, refused and failed updates included."""
    return sum(
        (Traffic(update.bytes_up, update.bytes_down, update.bytes_setup) for update in updates), Traffic()
    )


def total_traffic(rounds: Iterable[RoundRecord]) -> Traffic:
    """Add up a run's bytes."""
    return sum((traffic(record.updates) for record in rounds), Traffic())


def mean_traffic(rounds: Sequence[RoundRecord]) -> Traffic:
    """Return the mean bytes of one client in one training round."""
    trained = training_rounds(rounds)
    asked = max(1, sum(len(record.updates) for record in trained))
    sent = total_traffic(trained)
    return Traffic(round(sent.up / asked), round(sent.down / asked), round(sent.setup / asked))


def bits_per_parameter(updates: Iterable[UpdateRecord], parameters: int) -> float | None:
    """Return the mean size of an accepted update in bits per parameter, envelope included."""
    sizes = [update.bytes_up for update in updates if update.status == "accepted"]
    return 8 * sum(sizes) / len(sizes) / parameters if sizes and parameters else None


def coding_error(updates: Iterable[UpdateRecord]) -> float | None:
    """Return the mean share of an update's norm that its code left out; None where nobody said."""
    errors = [update.metrics["codec_error"] for update in updates if "codec_error" in update.metrics]
    return sum(errors) / len(errors) if errors else None


def averaging_errors(rounds: Iterable[RoundRecord]) -> list[tuple[int, float]]:
    """Return (round, error) where averaging was measured, which is where it is not exact."""
    return [(record.round, record.averaging_error) for record in rounds if record.averaging_error is not None]


@dataclass(frozen=True)
class Standing:
    """How a robust rule judged one client.

    Attributes:
        client: whose updates.
        rounds: in which they were judged.
        kept: mean share of an update that counted.
        distance: median over the rounds of its distance to the result, as a multiple of the round's median.

    """

    client: str
    rounds: int
    kept: float
    distance: float


def standings(rounds: Iterable[RoundRecord]) -> list[Standing]:
    """Return how a robust rule judged each client, the most distant first; [] with the plain mean."""
    found: dict[str, list[tuple[float, float]]] = {}
    for record in rounds:
        judged = [(u.client, u.kept, u.distance) for u in record.updates if u.distance is not None]
        usual = statistics.median([distance for _, _, distance in judged]) if judged else 0.0
        for client, kept, distance in judged:
            multiple = distance / usual if usual else (math.inf if distance else 1.0)
            found.setdefault(client, []).append((kept or 0.0, multiple))
    rows = [
        Standing(
            client, len(pairs), statistics.mean(k for k, _ in pairs), statistics.median(d for _, d in pairs)
        )
        for client, pairs in found.items()
    ]
    return sorted(rows, key=lambda row: (-row.distance, row.client))


def peak_memory(rounds: Iterable[RoundRecord]) -> float | None:
    """Return the most bytes that a client's training held above its start; None where nobody said."""
    held = [update.metrics.get("peak_memory", 0.0) for record in rounds for update in record.updates]
    return max(held, default=0.0) or None


def statements_of(record: RoundRecord) -> list[PrivacyStatement]:
    """Return what was stated about the privacy of a round, by its clients or by the server."""
    stated = (record.privacy, *(update.privacy for update in record.updates))
    return [statement for statement in stated if statement is not None]


def statuses(updates: Iterable[UpdateRecord]) -> dict[str, int]:
    """Count updates by status; every status is a key."""
    counted = Counter[str](update.status for update in updates)
    return {status: counted[status] for status in STATUSES}


def metrics_of(rounds: Iterable[RoundRecord], scope: str = "central") -> list[str]:
    """Return the metrics that were evaluated, the most telling first."""
    found = {name for record in rounds for item in _of_scope(record, scope) for name in item.metrics}
    known = [name for name in PREFERRED if name in found]
    return known + sorted(found.difference(PREFERRED))


def leading_metrics(rounds: Iterable[RoundRecord]) -> list[str]:
    """Return the two metrics that a short table or plot shows; perplexity says what the loss says."""
    found = metrics_of(rounds)
    known = [name for name in found if name in PREFERRED and name != "perplexity"]
    return (known or found)[:2]


def headline_metric(rounds: Sequence[RoundRecord]) -> str:
    """Return the metric that sums a run up; empty when nothing was evaluated."""
    return next(iter(metrics_of(rounds)), "")


def groups_of(rounds: Iterable[RoundRecord], scope: str = "central") -> list[str]:
    """Return the names of the groups that were evaluated separately."""
    return sorted({item.group for record in rounds for item in _of_scope(record, scope)} - {""})


def value_of(
    evaluations: Iterable[EvaluationRecord], metric: str, group: str = "", scope: str = "central"
) -> float | None:
    """Return one metric of one group, or None where it was not evaluated."""
    for item in evaluations:
        if (item.scope, item.group) == (scope, group):
            return item.metrics.get(metric)
    return None


def series(
    rounds: Iterable[RoundRecord], metric: str, group: str = "", scope: str = "central"
) -> list[tuple[int, float]]:
    """Return (round, value) of the rounds that evaluated a metric."""
    values = ((record.round, value_of(record.evaluations, metric, group, scope)) for record in rounds)
    return [(number, value) for number, value in values if value is not None]


def changes(rounds: Sequence[RoundRecord], metric: str) -> list[Change]:
    """Return before and after of the whole test set (first) and of every group."""
    return [_change(rounds, metric, group) for group in ["", *groups_of(rounds)]]


def comparisons(rounds: Sequence[RoundRecord], metric: str, groups: Sequence[str]) -> list[Comparison]:
    """Return base, federation, and the other ways of training that were evaluated; [] when none was."""
    others = sorted(
        {item.scope for record in rounds for item in record.evaluations} - {"central", "federated"},
        key=lambda scope: (not scope.startswith("pooled"), scope),
    )
    if not others:
        return []
    central = [series(rounds, metric, group) for group in groups]
    trained = [[pair for pair in line if pair[0] > 0] for line in central]
    rows = [
        Comparison("base model", tuple(line[0][1] if line and line[0][0] == 0 else None for line in central)),
        Comparison("federated", tuple(line[-1][1] if line else None for line in trained)),
    ]
    for scope in others:
        lines = [series(rounds, metric, group, scope) for group in groups]
        rows.append(Comparison(_scope_name(scope), tuple(line[-1][1] if line else None for line in lines)))
    return rows


def clients_of(rounds: Iterable[RoundRecord]) -> list[str]:
    """Return every client that was asked at least once."""
    return sorted({update.client for record in rounds for update in record.updates})


def phases_of(rounds: Iterable[RoundRecord]) -> list[str]:
    """Return the phases in which time was spent, in the order in which a round goes through them."""
    found = dict.fromkeys(phase for record in rounds for phase in record.phases)
    return [phase for phase in PHASES if phase in found] + [phase for phase in found if phase not in PHASES]


def training_rounds(rounds: Iterable[RoundRecord]) -> list[RoundRecord]:
    """Leave out round 0, the state before training."""
    return [record for record in rounds if record.round > 0]


def _change(rounds: Sequence[RoundRecord], metric: str, group: str) -> Change:
    line = series(rounds, metric, group)
    before = next((value for number, value in line if number == 0), None)
    after = next((value for number, value in reversed(line) if number > 0), None)
    return Change(group, _num_examples(rounds, group), before, after)


def _num_examples(rounds: Sequence[RoundRecord], group: str) -> int:
    evaluated = (item for record in rounds for item in _of_scope(record, "central"))
    return max((item.num_examples for item in evaluated if item.group == group), default=0)


def _of_scope(record: RoundRecord, scope: str) -> Iterable[EvaluationRecord]:
    return (item for item in record.evaluations if item.scope == scope)


def _scope_name(scope: str) -> str:
    if scope in _SCOPES:
        return _SCOPES[scope]
    kind, _, client = scope.partition(":")
    return f"{client} alone" if kind == "alone" else scope


@dataclass(frozen=True)
class Setback:
    """One reason for which updates did not count, and the (client, round) pairs that it met."""

    status: str
    code: str
    message: str
    met: tuple[tuple[str, int], ...]


def setbacks(rounds: Iterable[RoundRecord]) -> list[Setback]:
    """Return what was refused, failed or late, by reason, the most frequent first."""
    found: dict[tuple[str, str, str], list[tuple[str, int]]] = {}
    for record in rounds:
        for update in record.updates:
            if update.status != "accepted":
                reason = (update.status, update.code, update.message)
                found.setdefault(reason, []).append((update.client, record.round))
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return [Setback(*reason, tuple(met)) for reason, met in ordered]
