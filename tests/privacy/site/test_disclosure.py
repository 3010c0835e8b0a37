import pytest

from fedft.errors import Code, FedftError
from fedft.privacy.site.disclosure import PUBLIC, check_outgoing, outgoing_message

PRIVATE_VALUES = [
    "loss",
    "accuracy",
    "examples",
    "batch_size",
    "clipped",
    "non_finite",
    "seconds",
    "residual_norm",
]


def test_what_a_configuration_says_may_leave() -> None:
    report = dict.fromkeys(PUBLIC, 1.0)

    assert check_outgoing(report, private=True, allowed=()) == report


@pytest.mark.parametrize("name", PRIVATE_VALUES)
@pytest.mark.parametrize("allowed", [(), ("*",), tuple(PRIVATE_VALUES)])
def test_values_of_private_examples_stay_whatever_the_policy_lets_out(
    name: str, allowed: tuple[str, ...]
) -> None:
    with pytest.raises(FedftError) as caught:
        check_outgoing({"steps": 3, name: 1.0}, private=True, allowed=allowed)

    assert caught.value.code == "FEDFT-8321"


def test_without_privacy_the_policy_decides() -> None:
    assert check_outgoing({"loss": 1.0}, private=False, allowed=("loss",)) == {"loss": 1.0}
    assert check_outgoing({"loss": 1.0}, private=False, allowed=("*",)) == {"loss": 1.0}
    with pytest.raises(FedftError) as caught:
        check_outgoing({"loss": 1.0}, private=False, allowed=("accuracy",))
    assert caught.value.code == "FEDFT-8310"


QUOTES = ("3003", "3030", "7010", "7011", "8206", "8403", "8404", "8408", "8824", "9010", "0042")
TELLS_NOTHING = ("1003", "2010", "2103", "4016", "7004", "7022", "8207", "8300", "8322")


@pytest.mark.parametrize("number", QUOTES)
def test_a_message_that_may_quote_records_stays(number: str) -> None:
    assert "secret" not in outgoing_message(Code(f"FEDFT-{number}"), "secret")


@pytest.mark.parametrize("number", TELLS_NOTHING)
def test_a_message_about_the_configuration_or_the_budget_leaves(number: str) -> None:
    assert outgoing_message(Code(f"FEDFT-{number}"), "epsilon is spent") == "epsilon is spent"
