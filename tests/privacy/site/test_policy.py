import pickle
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from fedft.errors import FedftError
from fedft.privacy.accounting.events import Budget
from fedft.privacy.site import policy as policy_module
from fedft.privacy.site.policy import PolicyRequest, PolicyViolationError, SitePolicy, load_policy

EXAMPLE = Path(policy_module.__file__).with_name("example_policy.toml")

TABLE = {
    "datasets": {"notes": {"epsilon": 8.0, "delta": 1e-6, "private": True}},
    "models": {"bases": ["b1"], "frames": ["f1"], "initialisers": ["random"]},
    "messages": {"codecs": ["ternary"], "metrics": ["accuracy"], "secure_aggregation": True},
    "server": {"identities": ["hub"]},
}
GOOD = PolicyRequest(
    server="hub",
    dataset="notes",
    base_digest="b1",
    frame_digest="f1",
    initialiser="random",
    codec="ternary",
    private=True,
    epsilon=8.0,
    delta=1e-6,
    secure_aggregation=True,
    metrics=("accuracy",),
)
VIOLATIONS: dict[str, dict[str, object]] = {
    "FEDFT-8302": {"private": False},
    "FEDFT-8303": {"epsilon": 8.01},
    "FEDFT-8304": {"delta": 1.1e-6},
    "FEDFT-8305": {"base_digest": "b2"},
    "FEDFT-8306": {"frame_digest": "f2"},
    "FEDFT-8307": {"initialiser": "lora-sb"},
    "FEDFT-8308": {"codec": "dense"},
    "FEDFT-8309": {"secure_aggregation": False},
    "FEDFT-8310": {"metrics": ("accuracy", "loss")},
    "FEDFT-8311": {"server": "elsewhere"},
    "FEDFT-8312": {"dataset": "letters"},
}


@pytest.fixture
def policy() -> SitePolicy:
    return SitePolicy.model_validate(TABLE)


def _violations(policy: SitePolicy, **changes: Any) -> PolicyViolationError:
    with pytest.raises(PolicyViolationError) as caught:
        policy.check(replace(GOOD, **changes))
    return caught.value


def test_an_instruction_at_the_limits_passes(policy: SitePolicy) -> None:
    policy.check(GOOD)


@pytest.mark.parametrize(("code", "changes"), VIOLATIONS.items(), ids=VIOLATIONS)
def test_each_violation_is_refused_with_its_code(
    policy: SitePolicy, code: str, changes: dict[str, object]
) -> None:
    refused = _violations(policy, **changes)

    assert refused.code == code
    assert len(refused.violations) == 1


def test_all_violations_are_listed_at_once(policy: SitePolicy) -> None:
    everything: dict[str, object] = {}
    for code, changes in VIOLATIONS.items():
        if code not in ("FEDFT-8302", "FEDFT-8312"):
            everything |= changes

    refused = _violations(policy, **everything)

    assert refused.code == "FEDFT-8300"
    assert {one.code for one in refused.violations} == VIOLATIONS.keys() - {"FEDFT-8302", "FEDFT-8312"}
    assert all(one.code in str(refused) for one in refused.violations)


@pytest.mark.parametrize("field", ["epsilon", "delta"])
def test_not_a_number_is_not_within_a_limit(policy: SitePolicy, field: str) -> None:
    assert len(_violations(policy, **{field: float("nan")}).violations) == 1


def test_limits_of_privacy_do_not_bind_a_run_without_it() -> None:
    table = {**TABLE, "datasets": {"notes": {"epsilon": 1.0, "delta": 1e-6, "private": False}}}

    SitePolicy.model_validate(table).check(replace(GOOD, private=False, epsilon=float("inf"), delta=1.0))


def test_a_star_allows_anything_and_an_empty_list_nothing() -> None:
    table = {**TABLE, "models": {"bases": ["*"], "frames": [], "initialisers": ["*"]}}
    policy = SitePolicy.model_validate(table)

    refused = _violations(policy, base_digest="any", initialiser="pissa")

    assert refused.code == "FEDFT-8306"


def test_the_budget_is_the_data_sets(policy: SitePolicy) -> None:
    assert policy.budget("notes") == Budget(8.0, 1e-6)
    with pytest.raises(FedftError, match="FEDFT-8312"):
        policy.budget("letters")


def test_a_refusal_survives_pickling(policy: SitePolicy) -> None:
    refused = _violations(policy, codec="dense", server="x")

    again = pickle.loads(pickle.dumps(refused))

    assert (again.code, str(again)) == (refused.code, str(refused))
    assert [one.code for one in again.violations] == [one.code for one in refused.violations]


def test_a_policy_cannot_be_changed_once_read(policy: SitePolicy) -> None:
    with pytest.raises(ValueError, match="frozen"):
        policy.datasets["notes"].epsilon = 100.0  # type: ignore[misc]  # what is tested
    with pytest.raises(ValueError, match="frozen"):
        policy.server = policy.server  # type: ignore[misc]  # what is tested


def test_a_file_is_read(tmp_path: Path, policy: SitePolicy) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(tomli_w.dumps(TABLE))

    assert load_policy(path) == policy


def test_the_example_loads_and_refuses_every_server() -> None:
    policy = load_policy(EXAMPLE)

    policy_refusal = _violations(policy, metrics=())
    assert policy_refusal.code == "FEDFT-8311"


def _drop(table: dict[str, Any], *keys: str) -> dict[str, Any]:
    copy = tomllib.loads(tomli_w.dumps(table))
    place = copy
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    return copy


@pytest.mark.parametrize(
    "keys",
    [
        ("datasets",),
        ("datasets", "notes", "epsilon"),
        ("datasets", "notes", "private"),
        ("models", "frames"),
        ("messages", "secure_aggregation"),
        ("messages", "metrics"),
        ("server",),
    ],
)
def test_a_missing_field_is_refused(tmp_path: Path, keys: tuple[str, ...]) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(tomli_w.dumps(_drop(TABLE, *keys)))

    with pytest.raises(FedftError, match=r"\.".join(keys)) as caught:
        load_policy(path)
    assert caught.value.code == "FEDFT-8301"


@pytest.mark.parametrize(
    "text", ["not toml = = 1", "[datasets.x]\nepsilon = -1\ndelta = 2.0\nprivate = 'yes'\nmore = 1"]
)
def test_a_broken_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)

    with pytest.raises(FedftError) as caught:
        load_policy(path)
    assert caught.value.code == "FEDFT-8301"


def test_every_mistake_of_a_file_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("[datasets.x]\nepsilon = -1\ndelta = 2.0\nprivate = 'yes'\nmore = 1")

    with pytest.raises(FedftError) as caught:
        load_policy(path)

    for place in ("x.epsilon", "x.delta", "x.private", "x.more", "models", "messages", "server"):
        assert place in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FedftError, match="FEDFT-8301"):
        load_policy(tmp_path / "none.toml")
