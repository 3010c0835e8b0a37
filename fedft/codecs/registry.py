"""From names and wire ids to codecs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedft.codecs.block_int import BlockInt
from fedft.codecs.dense import Dense
from fedft.codecs.interface import Codec
from fedft.codecs.rotated import Rotated
from fedft.codecs.spec import BlockIntParams, CodecSpec, DenseParams, RotatedParams, TernaryParams
from fedft.codecs.ternary import Ternary
from fedft.errors import Code, FedftError

_NAMED: dict[str, Callable[..., Codec]] = {
    "ternary": Ternary,
    "rotated1": lambda: Rotated(1),
    "rotated2": lambda: Rotated(2),
    "int4": lambda block=512: BlockInt(4, block),
    "int8": lambda block=512: BlockInt(8, block),
    "dense": lambda: Dense("float32"),
    "bf16": lambda: Dense("bfloat16"),
}
_BY_ID = {kind.id: kind for kind in (Dense, Ternary, Rotated, BlockInt)}


def codec_names() -> tuple[str, ...]:
    """Every name that ``make_codec`` knows."""
    return tuple(_NAMED)


def codec_versions() -> dict[int, int]:
    """Wire id to version of every codec that this build can decode."""
    return {codec_id: kind.version for codec_id, kind in _BY_ID.items()}


def make_codec(name: str, **options: Any) -> Codec:
    """Build a codec from its configured name and options.

    Args:
        name: one of ``codec_names()``.
        options: ``ternary`` takes density, rule and alpha; ``int4`` and ``int8`` take block.

    Raises:
        FedftError: FEDFT-4011 on an unknown name, an unknown option or a value out of range.

    """
    if name not in _NAMED:
        raise FedftError(Code.CODEC_OPTIONS_INVALID, f"no codec {name!r}", hint=f"one of {', '.join(_NAMED)}")
    try:
        return _NAMED[name](**options)
    except TypeError as error:
        raise FedftError(Code.CODEC_OPTIONS_INVALID, f"codec {name} with {options}: {error}") from None


def codec_from_spec(spec: CodecSpec) -> Codec:
    """Build the codec that a shard names.

    Raises:
        FedftError: FEDFT-4010 on an unknown id or version, FEDFT-4011 on bad parameters.

    """
    if spec.codec_id not in _BY_ID:
        raise FedftError(Code.CODEC_UNSUPPORTED, f"codec {spec.codec_id} is unknown here")
    kind = _BY_ID[spec.codec_id]
    if spec.version != kind.version:
        raise FedftError(
            Code.CODEC_UNSUPPORTED, f"codec {kind.__name__} version {spec.version} is unknown here"
        )
    match spec.params:
        case DenseParams(dtype) if kind is Dense:
            return Dense(dtype)
        case TernaryParams() as params if kind is Ternary:
            return Ternary.of(params)
        case RotatedParams(bits) if kind is Rotated:
            return Rotated(bits)
        case BlockIntParams(bits, block) if kind is BlockInt:
            return BlockInt(bits, block)
    raise FedftError(
        Code.CODEC_OPTIONS_INVALID, f"codec {kind.__name__} came with {type(spec.params).__name__}"
    )
