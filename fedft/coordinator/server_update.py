"""How a round's mean becomes the next state: exactly, or through the codec of the broadcast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fedft.codecs import Codec, CodecContext, Manifest, Shard, decode
from fedft.methods import Method
from fedft.tensors import Arrays


@dataclass(frozen=True)
class RoundState:
    """The state after a round.

    ``shards`` code its difference to the state before, empty when the state is sent whole; ``residual``
    is what the codec left out, to be added to the next round's mean (None without a codec).
    """

    state: Arrays
    shards: tuple[Shard, ...] = ()
    residual: Arrays | None = None


@dataclass(frozen=True)
class ServerUpdate:
    """Applies means to states. With a codec the state moves by what the coded difference decodes to.

    Server and clients then compute the method's next state from the same bytes, so they hold the same bits,
    and error feedback at the server keeps what one broadcast leaves out for the next.
    """

    method: Method
    codec: Codec | None
    manifest: Manifest

    def apply(self, state: Arrays, mean: Arrays, residual: Arrays | None, seed: bytes) -> RoundState:
        """Return the state after a round; ``seed`` is that of the round whose broadcast carries it."""
        if self.codec is None:
            return RoundState(self.method.next_state(state, mean))
        wanted = mean if residual is None else {name: mean[name] + residual[name] for name in mean}
        rounding = np.random.default_rng(int.from_bytes(seed[:8], "little"))
        context = CodecContext(seed=seed, generator=rounding)
        shards = tuple(self.codec.encode(wanted, self.manifest, context))
        applied = decode(shards, self.manifest, context)
        return RoundState(
            self.method.next_state(state, applied),
            shards,
            {name: wanted[name] - applied[name] for name in wanted},
        )


def averaged(
    number: int, new: RoundState, weights: Mapping[int, float], earlier: Callable[[int], Arrays]
) -> RoundState:
    """Return the state that a round ends with, of rounds and their weights; ``earlier`` reads theirs.

    A mean is broadcast whole. The sum is in float64, in the order of the rounds.
    """
    if set(weights) == {number}:
        return new
    total = {name: np.zeros(value.shape) for name, value in new.state.items()}
    for each in sorted(weights):
        state = new.state if each == number else earlier(each)
        for name, value in state.items():
            total[name] += weights[each] * value
    return RoundState({name: value.astype(np.float32) for name, value in total.items()})
