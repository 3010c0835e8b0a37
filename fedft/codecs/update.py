"""All shards of one update: checked together, then used."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedft.codecs.interface import CodecContext, Decoded
from fedft.codecs.manifest import Manifest
from fedft.codecs.registry import codec_from_spec
from fedft.codecs.spec import CodecSpec, Shard
from fedft.errors import Code, FedftError


@dataclass(frozen=True)
class DecodedUpdate:
    """Checked shards that cover a manifest exactly."""

    shards: tuple[Decoded, ...]

    @property
    def peak(self) -> float:
        """Largest magnitude that a sink will be given."""
        return max(shard.peak for shard in self.shards)

    @property
    def norm(self) -> float:
        """L2 norm of the coded values."""
        return float(np.sqrt(sum(shard.squared_norm for shard in self.shards)))

    def flat(self, manifest: Manifest) -> NDArray[np.float32]:
        """Return the decoded values as the manifest's flat vector; FEDFT-4014 when one is not finite."""
        flat = np.zeros(manifest.total_elements, dtype=np.float32)
        for shard in self.shards:
            shard.write_into(flat)
        if not np.isfinite(flat).all():  # a rotation adds values up, so scales may be finite and sums not
            raise FedftError(Code.CODED_VALUE_INVALID, "the decoded values are not finite")
        return flat


def decode_update(
    shards: Sequence[Shard],
    manifest: Manifest,
    context: CodecContext,
    *,
    accepted: Collection[CodecSpec] | None = None,
) -> DecodedUpdate:
    """Check shards from anyone against the receiver's manifest; nothing is accumulated yet.

    Args:
        shards: must cover the manifest's tensors in order, without gap or overlap.
        manifest: the receiver's own.
        context: the round's seed.
        accepted: the codecs that the round allows; None allows every known one.

    Raises:
        FedftError: FEDFT-4010 to FEDFT-4014, see docs/errors.md.

    """
    _check_cover(shards, manifest)
    for shard in shards:
        if accepted is not None and shard.codec not in accepted:
            codec_from_spec(shard.codec)  # an unknown one is reported as unknown, not as unwanted
            raise FedftError(Code.CODEC_NOT_ACCEPTED, f"this round does not accept {shard.codec}")
    return DecodedUpdate(
        tuple(codec_from_spec(shard.codec).decode_shard(shard, manifest, context) for shard in shards)
    )


def decode(
    shards: Sequence[Shard], manifest: Manifest, context: CodecContext
) -> dict[str, NDArray[np.float32]]:
    """Decode shards to named float32 arrays; raises as ``decode_update`` does."""
    return manifest.unflatten(decode_flat(shards, manifest, context))


def decode_flat(shards: Sequence[Shard], manifest: Manifest, context: CodecContext) -> NDArray[np.float32]:
    """Decode shards to the manifest's flat vector; raises as ``decode_update`` does."""
    return decode_update(shards, manifest, context).flat(manifest)


def _check_cover(shards: Sequence[Shard], manifest: Manifest) -> None:
    expected = 0
    for shard in shards:
        if shard.first_tensor != expected or shard.tensor_count < 1:
            raise FedftError(
                Code.SHARDS_INCOMPLETE, f"a shard starts at {shard.first_tensor}, expected {expected}"
            )
        expected += shard.tensor_count
    if expected != len(manifest.tensors):
        raise FedftError(
            Code.SHARDS_INCOMPLETE,
            f"shards cover {expected} tensors, the manifest has {len(manifest.tensors)}",
        )
