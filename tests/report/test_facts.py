from __future__ import annotations

from pathlib import Path

from fedft.report import facts
from fedft.store import EvaluationRecord, RoundRecord
from tests.store.build import beginning, evaluations, store_with_run, training_round, update


def test_bytes_count_refused_updates_and_setup_apart() -> None:
    rounds = [beginning(), training_round(1), training_round(2)]

    total = facts.total_traffic(rounds)

    assert total == facts.Traffic(up=3 * 50 + 2 * 2000, down=2 * 3 * 1100, setup=3 * 5000)
    assert total.total == total.up + total.down + total.setup
    assert facts.mean_traffic(rounds) == facts.Traffic(up=round(4000 / 6), down=1100, setup=0)


def test_changes_run_from_the_state_before_training_to_the_last_evaluated_round() -> None:
    rounds = [beginning(), training_round(1), training_round(2), RoundRecord(3, "")]

    whole, age, bus = facts.changes(rounds, "exact_match")

    assert (whole.group, whole.before, whole.after, whole.num_examples) == ("", 0.125, 0.625, 40)
    assert (age.group, bus.group, age.num_examples) == ("age", "bus", 20)


def test_nothing_before_and_nothing_after() -> None:
    (before,) = facts.changes([RoundRecord(0, "", evaluations=evaluations(0.5)[:1])], "exact_match")
    (after,) = facts.changes([RoundRecord(1, "", evaluations=evaluations(0.5)[:1])], "exact_match")

    assert (before.before, before.after) == (0.5, None)
    assert (after.before, after.after) == (None, 0.5)
    assert facts.headline_metric([RoundRecord(0, "")]) == ""


def test_the_most_telling_metric_comes_first() -> None:
    record = EvaluationRecord(
        "central", "", 1, {"zeta": 1.0, "loss": 1.0, "accuracy": 0.5, "perplexity": 2.0}
    )

    assert facts.metrics_of([RoundRecord(0, "", evaluations=(record,))]) == [
        "accuracy",
        "perplexity",
        "loss",
        "zeta",
    ]


def test_a_short_table_shows_a_score_and_the_loss_or_what_there_is() -> None:
    def leading(**metrics: float) -> list[str]:
        record = EvaluationRecord("central", "", 1, metrics)
        return facts.leading_metrics([RoundRecord(0, "", evaluations=(record,))])

    assert leading(loss=1, perplexity=2, token_loss=1, exact_match=0) == ["exact_match", "loss"]
    assert leading(own=1) == ["own"]
    assert leading() == []


def test_the_headline_is_the_servers_evaluation_not_the_clients() -> None:
    record = EvaluationRecord("federated", "", 1, {"exact_match": 1.0})

    assert facts.headline_metric([RoundRecord(1, "", evaluations=(record,))]) == ""


def test_comparison_has_base_federation_pooled_and_each_client() -> None:
    last = training_round(2)
    others = (*evaluations(0.75, "pooled"), *evaluations(0.25, "alone:b"), *evaluations(0.5, "alone:a"))
    rounds = [beginning(), RoundRecord(2, "", evaluations=(*last.evaluations, *others))]

    rows = facts.comparisons(rounds, "exact_match", ["", "age"])

    assert [(row.name, row.values) for row in rows] == [
        ("base model", (0.125, 0.125)),
        ("federated", (0.625, 0.625)),
        ("central, on pooled data", (0.75, 0.75)),
        ("a alone", (0.5, 0.5)),
        ("b alone", (0.25, 0.25)),
    ]
    assert facts.comparisons([beginning(), last], "exact_match", [""]) == []


def test_setbacks_are_grouped_by_reason() -> None:
    found = facts.setbacks([training_round(1), training_round(2)])

    assert [(item.status, item.code, item.met) for item in found] == [
        ("failed", "", (("client-2", 1), ("client-2", 2))),
        ("refused", "FEDFT-5016", (("client-1", 1), ("client-1", 2))),
    ]


def test_phases_stand_in_the_order_in_which_a_round_goes_through_them() -> None:
    rounds = [RoundRecord(0, "", phases={"evaluation": 1, "own": 1, "model": 1}), training_round(1)]

    assert facts.phases_of(rounds) == ["model", "training", "evaluation", "own"]


def test_statuses_count_every_kind() -> None:
    counts = facts.statuses([update("a"), update("b", "late")])

    assert counts == {"accepted": 1, "refused": 0, "failed": 0, "late": 1}


def test_facts_of_a_store_are_those_of_its_records(tmp_path: Path) -> None:
    store, run = store_with_run(tmp_path, rounds=1)

    assert facts.series(store.rounds(run.id), "exact_match", "age") == [(0, 0.125), (1, 0.375)]
