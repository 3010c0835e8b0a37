"""What a server may say to a site, and what becomes of it beyond all bounds."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from fedft.codecs import CodecContext, Manifest, decode, make_codec
from fedft.errors import FedftError
from fedft.transport.client import _work
from fedft.wire.decode import MAX_SECONDS
from fedft.wire.v1 import link_pb2 as pb

SEED = b"round"


def _said(**values: Any) -> pb.Work:
    usual: dict[str, Any] = {
        "message_id": "m",
        "message_type": "train",
        "group": "1",
        "digest": bytes(32),
        "size": 5,
    }
    return pb.Work(**{**usual, **values})


@pytest.mark.parametrize("seconds", [1e300, math.inf, MAX_SECONDS + 1])
def test_an_instruction_lasts_a_month_at_most(seconds: float) -> None:
    assert MAX_SECONDS - 5 < _work(_said(remaining_seconds=seconds)).remaining <= MAX_SECONDS


@pytest.mark.parametrize("seconds", [math.nan, -1e300, -math.inf, 0.0])
def test_an_instruction_that_is_over_is_over(seconds: float) -> None:
    assert -5 < _work(_said(remaining_seconds=seconds)).remaining <= 0


@pytest.mark.parametrize(
    "values", [{"message_id": "m" * 300}, {"group": "g" * 300}, {"message_type": "t" * 300}, {"digest": b"x"}]
)
def test_names_beyond_all_bounds_end_the_connection(values: dict[str, object]) -> None:
    with pytest.raises(FedftError, match="FEDFT-4007"):
        _work(_said(**values))


@pytest.mark.parametrize("name", ["rotated1", "rotated2"])
def test_a_broadcast_whose_scales_are_finite_and_whose_sums_are_not_is_refused(name: str) -> None:
    state = {"R": np.ones((70, 70), np.float32)}
    manifest = Manifest.of(state)
    context = CodecContext(seed=SEED, generator=np.random.default_rng(0))
    [shard] = make_codec(name).encode(state, manifest, context)
    scales = np.full(len(shard.scales) // 4, 3e38, "<f4").tobytes()
    with np.errstate(over="ignore"), pytest.raises(FedftError, match="FEDFT-4014"):
        decode([dataclasses.replace(shard, scales=scales)], manifest, context)
