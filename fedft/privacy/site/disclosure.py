"""What may leave a site beside the noised update.

With privacy on, a value leaves only if it is a function of the configuration, of the number of examples
(which the claim treats as public) or of values that were noised and charged before. Everything else that a
client knows about its training was computed from private examples and stays: losses, metrics, gradient norms,
clipping shares, batch sizes, counts of non-finite samples, step times, the residual of error feedback.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

from fedft.errors import Code, FedftError

Value = TypeVar("Value")

PUBLIC = frozenset(
    {
        "codec_error",
        "delta",
        "epsilon",
        "expected_batch",
        "ledger_digest",
        "ledger_sequence",
        "max_grad_norm",
        "noise_multiplier",
        "payload_bytes",
        "sample_rate",
        "steps",
    }
)
"""Names that may leave a private round.

`payload_bytes` and `codec_error` are the size of the encoded update and what the code left out of it:
functions of the update after noise. `sample_rate` is the expected batch over the number of examples.
"""


def outgoing_message(code: Code, message: str) -> str:
    """Return the text of a refusal without what may quote records (``Code.private``); the code leaves."""
    return "the reason stays at the site; see its log" if code.private else message


def withheld() -> FedftError:
    """Return the one refusal of a private round for whatever may depend on data (FEDFT-8325)."""
    return FedftError(Code.ROUND_WITHHELD, "the private round is not answered")


def check_outgoing(
    report: Mapping[str, Value], *, private: bool, allowed: Collection[str]
) -> dict[str, Value]:
    """Return `report` unchanged if all of it may leave.

    Args:
        report: values that would travel beside the update, by name.
        private: whether the round is differentially private.
        allowed: metric names that the site policy lets out; with privacy on it adds nothing to `PUBLIC`,
            since a name says nothing about noise.

    Raises:
        FedftError: FEDFT-8321 for values that privacy holds back, FEDFT-8310 for values that the policy does.

    """
    names = {name for name in report if name not in PUBLIC}
    if private and names:
        raise FedftError(
            Code.UNACCOUNTED_RELEASE,
            f"{', '.join(sorted(names))} would leave a private round without being accounted for",
            hint="keep it at the site",
        )
    refused = {name for name in names if "*" not in allowed and name not in allowed}
    if refused:
        raise FedftError(
            Code.METRIC_NOT_ALLOWED, f"the site policy does not let {', '.join(sorted(refused))} out"
        )
    return dict(report)
