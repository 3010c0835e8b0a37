"""Coding an update so that what is decoded keeps within a norm."""

from __future__ import annotations

from fedft.codecs.interface import Codec, CodecContext
from fedft.codecs.manifest import Manifest
from fedft.codecs.spec import Shard
from fedft.codecs.update import decode_update
from fedft.errors import Code, FedftError
from fedft.tensors import Arrays

_ATTEMPTS = 8


def encode_bounded(
    tensors: Arrays, codec: Codec, manifest: Manifest, context: CodecContext, max_norm: float
) -> list[Shard]:
    """Code tensors, scaled down where what is decoded would have a larger L2 norm; 0 means no bound.

    Raises:
        FedftError: FEDFT-4023 where the code exceeds the bound however small its input; what coding raises.

    """
    shards = codec.encode(tensors, manifest, context)
    if not max_norm:
        return shards
    for _ in range(_ATTEMPTS):
        norm = decode_update(shards, manifest, context).norm
        if norm <= max_norm:
            return shards
        # A hair less than the ratio, since the scales of a code are rounded.
        shrink = (1 - 2.0**-12) * max_norm / norm
        tensors = {name: (shrink * array).astype("float32") for name, array in tensors.items()}
        shards = codec.encode(tensors, manifest, context)
    raise FedftError(
        Code.CODEC_EXCEEDS_NORM, f"codec {codec.name} does not keep within a norm of {max_norm:g}"
    )
