"""Codes that keep within a norm, and one that does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedft.codecs import CodecContext, Manifest, make_codec
from fedft.codecs.bounded import encode_bounded
from fedft.codecs.update import decode_update
from fedft.errors import FedftError


class Stubborn:
    """A codec whose code is the same, of norm 5, whatever it is given."""

    name = "stubborn"

    def encode(self, tensors: Any, manifest: Manifest, context: CodecContext) -> Any:
        return make_codec("dense").encode({"x": np.array([3, 4], np.float32)}, manifest, context)


@pytest.mark.parametrize("most", [5.0, 7.0, 0.0])
def test_within_the_bound_or_without_one_a_code_is_left_as_it_is(most: float) -> None:
    state, context = {"x": np.array([3, 4], np.float32)}, CodecContext()
    manifest = Manifest.of(state)

    shards = encode_bounded(state, make_codec("dense"), manifest, context, most)

    assert decode_update(shards, manifest, context).norm == 5.0


def test_a_code_that_exceeds_the_bound_however_small_its_input_is_refused() -> None:
    state = {"x": np.array([3, 4], np.float32)}

    with pytest.raises(FedftError, match=r"FEDFT-4023 .*stubborn"):
        encode_bounded(state, Stubborn(), Manifest.of(state), CodecContext(), 4.9)  # type: ignore[arg-type]
