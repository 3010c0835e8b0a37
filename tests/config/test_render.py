from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedft.config import RunConfig, load_config
from fedft.config.load import check
from fedft.config.reference import keys, manifest
from fedft.config.render import to_toml, toml_value
from fedft.config.templates import TEMPLATES, template


def flat(table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_key_has_a_description() -> None:
    assert [key.path for key in keys() if not key.facts.get("description")] == []


def named_by(config: RunConfig) -> set[str]:
    """Return what a configuration names, and the empty name, to which a section's own keys belong."""
    named = config.codec.name, config.training.optimizer, config.aggregation.rule, config.rounds.average
    return {"", *named}


@pytest.mark.parametrize("comments", [True, False])
def test_toml_has_every_key_and_loads_to_the_same_configuration(comments: bool) -> None:
    config = load_config("demo", {"task.answer_after": '#"\\', "adapter.targets": ["a", 'b"'], "seed": 2**62})

    table = tomllib.loads(to_toml(config, comments=comments))

    assert check(table) == config
    assert sorted(flat(table)) == sorted(key.path for key in keys() if key.owner in named_by(config))


def test_comments_say_meaning_range_and_default() -> None:
    text = to_toml(RunConfig(seed=5)).replace("\n# ", " ")

    assert "side of the square matrix R (fedsb), or LoRA's rank [1 to 8192, default 64]\nrank = 64" in text
    assert '["linear" | ' not in text
    assert '"constant" | "linear" | "cosine", default "constant"]\nschedule' in text
    assert "peak learning rate [over 0, at most 1000000, default 0.001]" in text
    assert "[true | false, default true]\nbefore = true" in text
    assert "default 17]\nseed = 5" in text
    for key in keys():
        assert key.facts["description"] in text or key.owner not in named_by(RunConfig())


def test_lines_are_short() -> None:
    assert max(map(len, to_toml(RunConfig()).splitlines())) <= 110


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_valid_and_commented(name: Any) -> None:
    text = template(name, "my.toml")

    check(tomllib.loads(text))
    assert "fedft simulate my.toml" in text
    assert text.startswith("# ")


def test_the_demo_template_is_the_demo() -> None:
    assert check(tomllib.loads(template("demo"))) == load_config("demo")


def test_the_minimal_template_has_few_keys_and_the_others_all() -> None:
    everything = len([key for key in keys() if key.owner in named_by(RunConfig())])

    assert len(list(flat(tomllib.loads(template("minimal"))))) < 20
    assert len(list(flat(tomllib.loads(template("sst2"))))) == everything


@pytest.mark.parametrize(
    "value", [True, 0, -3, 1e-9, 2.5e-4, 1e300, "", 'a"b\\', "ünï\t", ["a", "b,c"], ['it\'s \\ "x"'], []]
)
def test_values_come_back(value: Any) -> None:
    assert tomllib.loads(f"v = {toml_value(value)}")["v"] == value


def test_the_flower_manifest_lists_every_key_and_no_other() -> None:
    listed = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["tool"]["flwr"]
    table = listed["app"]["config"]

    assert table == tomllib.loads(manifest())["tool"]["flwr"]["app"]["config"]
    assert sorted(flat(table)) == sorted({*(key.path for key in keys()), "config", "resume"})
