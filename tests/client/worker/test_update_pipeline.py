"""The steps of an update are applied in their order, each on what the last one left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedft.client.worker.update_pipeline import OutgoingUpdate, UpdatePipeline


@dataclass(frozen=True)
class Scaled:
    """Multiplies, and tells by what."""

    name: str
    factor: float
    added: float = 0.0

    def apply(self, update: OutgoingUpdate, context: Any) -> OutgoingUpdate:
        arrays = {name: self.factor * array + self.added for name, array in update.arrays.items()}
        return replace(
            update, arrays=arrays, metrics={**update.metrics, self.name: float(len(update.metrics))}
        )


def test_steps_are_applied_in_their_order() -> None:
    delta = {"r": np.ones(2, np.float32)}
    context: Any = None

    sent = UpdatePipeline([Scaled("first", 2.0), Scaled("second", 3.0, 1.0)]).run(delta, context)
    assert sent.arrays["r"].tolist() == [7.0, 7.0]
    assert sent.metrics == {"first": 0.0, "second": 1.0}
    other = UpdatePipeline([Scaled("second", 3.0, 1.0), Scaled("first", 2.0)]).run(delta, context)
    assert other.arrays["r"].tolist() == [8.0, 8.0]
    assert delta["r"].tolist() == [1.0, 1.0]


def test_without_steps_an_update_leaves_as_it_is() -> None:
    delta = {"r": np.ones(2, np.float32)}
    context: Any = None

    assert UpdatePipeline([]).run(delta, context) == OutgoingUpdate(delta)
