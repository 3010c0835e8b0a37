"""Contradictions between keys."""

from __future__ import annotations

import pytest

from fedft.config.load import check
from fedft.errors import FedftError


def test_a_frame_that_changes_the_base_needs_one_that_is_not_quantised() -> None:
    check({"adapter": {"initialiser": "pissa"}})

    with pytest.raises(FedftError, match=r"adapter\.initialiser.*nf4 cannot take"):
        check({"adapter": {"initialiser": "pissa"}, "model": {"quant": "nf4"}})


def test_a_task_that_nobody_knows_is_an_error_and_not_another_s_behaviour() -> None:
    with pytest.raises(FedftError, match=r"FEDFT-1003 .*\n.*task.kind: .*'causal-lm' or 'sequence-class"):
        check({"task": {"kind": "regression"}})


@pytest.mark.parametrize("key", ["test", "public"])
def test_own_training_records_are_not_joined_by_the_demos(key: str) -> None:
    """A run on one's own records must not report the demo's perplexity, nor take a frame from its records."""
    data = {"train": "own.jsonl", "test": "test.jsonl", "public": "public.jsonl"}
    assert check({"data": data}).data.train == "own.jsonl"
    for value in ({}, {key: "demo"}, {key: ""}):
        with pytest.raises(FedftError, match=rf"FEDFT-1003[^$]*data\.{key}"):
            check({"data": {name: source for name, source in data.items() if name != key} | value})
    quiet = {"evaluation": {"every": 0}, "adapter": {"initialiser": "random"}}
    assert check({"data": {"train": "own.jsonl"}, **quiet}).data.test == "demo"


@pytest.mark.parametrize("role", ["text", "label"])
def test_a_classifier_reads_a_text_and_its_label(role: str) -> None:
    task = {"kind": "sequence-classification", "labels": ["a", "b"]}
    with pytest.raises(FedftError, match=rf"FEDFT-1003[^$]*data\.fields\.{role}"):
        check({"task": task, "data": {"fields": {role: ""}}})


MASKED = {"secagg": {"mode": "required"}, "codec": {"name": "dense"}}


def test_a_masked_run_of_the_defaults_needs_a_codec_without_factors_of_its_own() -> None:
    assert check(MASKED).secagg.required
    assert not check({}).secagg.required
    with pytest.raises(FedftError, match=r"codec\.name: \"ternary\" has factors that each client chooses"):
        check({"secagg": {"mode": "required"}})


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ({"method": "fedit"}, "method"),
        ({"evaluation": {"federated": True}}, r"evaluation\.federated"),
        ({"aggregation": {"rule": "median"}}, r"aggregation\.rule"),
        ({"data": {"partition": {"clients": 2}}}, r"data\.partition\.clients"),
        ({"data": {"partition": {"clients": 257}}}, r"data\.partition\.clients"),
        ({"rounds": {"cohort": 2}}, r"rounds\.cohort"),
        ({"secagg": {"mode": "required", "threshold": 2}}, r"secagg\.threshold"),
        ({"secagg": {"mode": "required", "threshold": 5}}, r"secagg\.threshold"),
        (
            {"privacy": {"mechanism": "client"}, "rounds": {"weighting": "uniform"}},
            r"secagg\.mode: the server bounds",
        ),
        (
            {
                "privacy": {"mechanism": "example"},
                "rounds": {"weighting": "uniform"},
                "adapter": {"initialiser": "dp-sketch"},
            },
            r"adapter\.initialiser: .*single sketches",
        ),
    ],
)
def test_what_needs_or_shows_single_updates_is_not_masked(table: dict[str, object], path: str) -> None:
    with pytest.raises(FedftError, match=path):
        check(MASKED | table)
