from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedft.aggregation import RoundAggregator
from fedft.codecs import CodecContext, Manifest, make_codec
from fedft.wire import ModelRef, RoundRef, Update

CLIENT = "client-a"
SHAPES = {"head.weight": (2, 3), "layer.0.R": (4, 4), "layer.1.R": (4, 4)}

State = dict[str, np.ndarray]
MakeUpdate = Callable[..., Update]
MakeAggregator = Callable[..., RoundAggregator]


def random_state(seed: int) -> State:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 1e-2, shape).astype(np.float32) for name, shape in SHAPES.items()}


MANIFEST = Manifest.of(random_state(0))
MODEL = ModelRef("aa" * 32, "bb" * 32, MANIFEST.digest(), "cc" * 32)
ROUND = RoundRef("run-1", 3)


@pytest.fixture
def make_update() -> MakeUpdate:
    def build(state: State | None = None, codec: str = "dense", **changes: Any) -> Update:
        state = random_state(1) if state is None else state
        shards = tuple(make_codec(codec).encode(state, Manifest.of(state), CodecContext()))
        update = Update(ROUND, MODEL, CLIENT, update_seq=0, num_examples=10, shards=shards)
        return dataclasses.replace(update, **changes)

    return build


@pytest.fixture
def make_aggregator() -> MakeAggregator:
    def build(**changes: Any) -> RoundAggregator:
        usual: dict[str, Any] = {"cohort": {CLIENT, "client-b"}, "weighting": "examples", "max_weight": 1000}
        return RoundAggregator(MANIFEST, round=ROUND, model=MODEL, **(usual | changes))

    return build
