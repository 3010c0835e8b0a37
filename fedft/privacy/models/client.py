"""Privacy whose unit is one client: clipped updates, and noise at a server that sees them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedft.config.rules import Contradiction
from fedft.privacy.models.interface import PrivacyModel
from fedft.privacy.models.shared import MECHANISM, weighs_and_tells_nothing
from fedft.statements import PrivacyUnit

if TYPE_CHECKING:
    from fedft.config import RunConfig


def _forbids(config: RunConfig) -> Iterator[Contradiction]:
    """What would weigh clients by their data, or choose them otherwise than the accounting says."""
    privacy = config.privacy
    yield from weighs_and_tells_nothing(config)
    if config.rounds.cohort:
        yield Contradiction(
            "rounds.cohort",
            "the accounting needs clients that are drawn one by one; set privacy.client_rate",
            (MECHANISM,),
        )
    if config.secagg.required:
        yield Contradiction(
            "secagg.mode",
            'the server bounds and counts single updates, which masks hide; set "off"',
            (MECHANISM,),
        )
    if config.rounds.min_replies:
        yield Contradiction(
            "rounds.min_replies",
            "a round is released however few have answered, or answers would decide who is in it",
            (MECHANISM,),
        )
    if privacy.clip_quantile and privacy.count_noise and 2 * privacy.count_noise <= privacy.noise_multiplier:
        yield Contradiction(
            "privacy.count_noise",
            "must exceed half the noise multiplier, or nothing is left for the updates",
            ("privacy.noise_multiplier",),
        )


CLIENT = PrivacyModel(
    unit=PrivacyUnit.CLIENT,
    private=True,
    charged_at_client=False,
    forbids=_forbids,
    client="fedft.client.worker.local_privacy:CLIENT_LEVEL",
    server="fedft.coordinator.central_dp:CentralPrivacy",
)
