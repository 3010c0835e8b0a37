"""What is known of a run while it goes on, gathered from its events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fedft.coordinator.events import (
    ClientAnswered,
    Event,
    Notice,
    PhaseStarted,
    RoundCommitted,
    RunFinished,
    RunStarted,
)
from fedft.report import facts
from fedft.report.format import clean, duration, metric_name, metric_value, size
from fedft.store import RoundRecord

COMPARISON = "comparison"
_MOST_GROUPS = 12
_RECENT = 5


class Watch:
    """Gathers events; every other class here only reads it.

    Args:
        earlier: the rounds that a resumed run committed before.

    """

    def __init__(self, earlier: Sequence[RoundRecord] = ()) -> None:
        self.rounds = list(earlier)
        self.groups = _groups(self.rounds)
        self.run_id = ""
        self.total_rounds = 0
        self.round = 0
        self.phase = ""
        self.phase_total = 0
        self.answers: Counter[str] = Counter()
        self._sent = facts.total_traffic(self.rounds)
        self._sent_now = facts.Traffic()

    def add(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case RunStarted():
                self.run_id, self.total_rounds = event.run_id, event.total_rounds
                self.round = event.first_round
            case PhaseStarted():
                self.round, self.phase, self.phase_total = event.round, event.phase, event.total
                self.answers.clear()
            case ClientAnswered():
                self.answers[event.update.status] += 1
                self._sent_now += facts.traffic([event.update])
            case RoundCommitted():
                self.rounds.append(event.record)
                self.groups = _groups(self.rounds)
                self.answers.clear()
                self.phase, self.phase_total = "", 0
                self._sent += facts.traffic(event.record.updates)
                self._sent_now = facts.Traffic()
            case Notice() if event.kind == COMPARISON:
                self.phase, self.phase_total = COMPARISON, 0
            case Notice() | RunFinished():
                pass

    @property
    def committed(self) -> int:
        """Number of the last committed round."""
        return self.rounds[-1].round if self.rounds else 0

    @property
    def sent(self) -> facts.Traffic:
        """All bytes so far, those of the open round included."""
        return self._sent + self._sent_now

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the last rounds; None before the first is committed."""
        recent = [record.seconds for record in facts.training_rounds(self.rounds[-_RECENT:])]
        if not recent:
            return None
        return (self.total_rounds - self.committed) * sum(recent) / len(recent)


def _groups(rounds: Sequence[RoundRecord]) -> list[facts.Change]:
    """Return the headline metric of each group, first and last seen; [] for none or very many."""
    metric = facts.headline_metric(rounds)
    found = [row for row in facts.changes(rounds, metric) if row.group] if metric else []
    return found if len(found) <= _MOST_GROUPS else []


def describe_event(event: Event, watch: Watch, *, with_bytes: bool) -> str:
    """Return the line that stays on the screen after an event; empty for events that leave none."""
    match event:
        case RunStarted():
            begun = event.first_round > 1
            how = f"goes on with round {event.first_round} of" if begun else "has started,"
            rounds = f"{event.total_rounds} round{'' if event.total_rounds == 1 else 's'}"
            return f"run {event.run_id} {how} {event.total_rounds if begun else rounds}"
        case RoundCommitted():
            return describe_round(event.record, watch.total_rounds, with_bytes=with_bytes)
        case Notice():
            return f"notice {clean(event.kind)}: {clean(event.message)}"
        case _:
            return ""


def describe_round(record: RoundRecord, total: int, *, with_bytes: bool) -> str:
    """Sum a committed round up in one line."""
    values = [
        f"{metric_name(name)} {metric_value(name, facts.value_of(record.evaluations, name))}"
        for name in facts.leading_metrics([record])
    ]
    sent = _bytes(record) if with_bytes else []
    parts = [*values, *_clients(record), *sent, duration(record.seconds)]
    return f"round {record.round:>{len(str(total))}}/{total}  {' · '.join(parts)}"


def describe_groups(record: RoundRecord) -> str:
    """Return the headline metric of each group in one line; empty for none or very many."""
    metric = facts.headline_metric([record])
    groups = facts.groups_of([record])
    if not metric or len(groups) > _MOST_GROUPS:
        return ""
    values = ((name, facts.value_of(record.evaluations, metric, name)) for name in groups)
    return ", ".join(f"{clean(name)} {metric_value(metric, value)}" for name, value in values)


def describe_others(counts: Counter[str] | dict[str, int]) -> str:
    """Count what did not go well: ``1 refused, 2 late``; empty when all did."""
    bad = ((status, counts[status]) for status in facts.STATUSES if status != "accepted" and counts[status])
    return ", ".join(f"{count} {status}" for status, count in bad)


def _clients(record: RoundRecord) -> list[str]:
    if not record.updates or record.round == 0:
        return []
    counts = facts.statuses(record.updates)
    others = describe_others(counts)
    spent = [stated.epsilon for stated in facts.statements_of(record)]
    epsilon = [f"epsilon {max(spent):.3g}"] if spent else []
    return [
        f"{counts['accepted']}/{len(record.updates)} clients{f' ({others})' if others else ''}",
        *epsilon,
    ]


def _bytes(record: RoundRecord) -> list[str]:
    sent = facts.traffic(record.updates)
    setup = [f"setup {size(sent.setup)}"] if sent.setup else []
    return [f"up {size(sent.up)}", f"down {size(sent.down)}", *setup] if sent.total else []
