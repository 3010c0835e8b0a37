"""What may leave a site beside the noised update.

With privacy on, a value leaves only if it is a function of the configuration, of the number of examples
(which the claim treats as public) or of values that were noised and charged before. Everything else that a
client knows about its training was computed from private examples and stays: losses, metrics, gradient norms,
clipping shares, batch sizes, counts of non-finite samples, step times, the residual of error feedback.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

from fedft.errors import FedftError

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

_HARMLESS = tuple(f"FEDFT-{section}" for section in (1, 2, 4, 5, 7, 80, 81, 82, 83, 84, 85, 86))
_MAY_TELL = frozenset(f"FEDFT-{number}" for number in (7010, 7011, 8206, 8403, 8408))


def outgoing_message(code: str, message: str) -> str:
    """Return the text of a private round's refusal, without what may quote records.

    Errors of reading data and of training (3xxx), unforeseen ones, sizes of batches and the fingerprint of
    the data keep their text at the site. The code leaves: that a site refuses is visible anyway.
    """
    harmless = code.startswith(_HARMLESS) and code not in _MAY_TELL
    return message if harmless else "the reason stays at the site, since the round is private; see its log"


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
            "FEDFT-8321",
            f"{', '.join(sorted(names))} would leave a private round without being accounted for",
            hint="keep it at the site",
        )
    refused = {name for name in names if "*" not in allowed and name not in allowed}
    if refused:
        raise FedftError("FEDFT-8310", f"the site policy does not let {', '.join(sorted(refused))} out")
    return dict(report)
