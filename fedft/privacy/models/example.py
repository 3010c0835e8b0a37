"""Privacy whose unit is one example: DP-SGD at every client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedft.config.rules import Contradiction
from fedft.privacy.models.interface import PrivacyModel
from fedft.privacy.models.shared import MECHANISM, weighs_and_tells_nothing
from fedft.registries import TASKS
from fedft.statements import PrivacyUnit

if TYPE_CHECKING:
    from fedft.config import RunConfig


def _forbids(config: RunConfig) -> Iterator[Contradiction]:
    """What would tell of a private client's examples, or cannot be drawn."""
    yield from weighs_and_tells_nothing(config)
    if config.task.too_long == "error":
        yield Contradiction(
            "task.too_long",
            'an error would tell that a private record is long; use "drop" or "truncate"',
            (MECHANISM,),
        )
    if config.model.dtype != "float32":
        yield Contradiction(
            "model.dtype",
            f'with {config.model.dtype} one example moves the rounding of all others; set "float32"',
            (MECHANISM,),
        )
    if config.privacy.head_max_norm and not (
        config.adapter.train_head and TASKS.get(config.task.kind).has_head
    ):
        yield Contradiction(
            "privacy.head_max_norm",
            "no head is trained beside the adapters; set 0",
            (MECHANISM, "adapter.train_head", "task.kind"),
        )
    yield from _sampling(config)


def _sampling(config: RunConfig) -> Iterator[Contradiction]:
    privacy, batch = config.privacy, config.training.batch_size
    if privacy.max_batch and privacy.sampling != "truncated-poisson":
        yield Contradiction(
            "privacy.max_batch", f"{privacy.sampling} sampling has no cap", ("privacy.sampling",)
        )
    elif privacy.max_batch and privacy.max_batch < batch:
        yield Contradiction(
            "privacy.max_batch",
            f"{privacy.max_batch} is below training.batch_size {batch}",
            ("privacy.sampling", "training.batch_size"),
        )


EXAMPLE = PrivacyModel(
    unit=PrivacyUnit.EXAMPLE,
    private=True,
    charged_at_client=True,
    forbids=_forbids,
    client="fedft.client.worker.local_privacy:EXAMPLE_LEVEL",
    server="fedft.coordinator.central_mechanism:StatedMean",
)
