"""From names and wire ids to codecs."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from fedft.codecs.block_int import BlockInt
from fedft.codecs.dense import Dense
from fedft.codecs.interface import Codec
from fedft.codecs.rotated import Rotated
from fedft.codecs.spec import NAMED, CodecSpec, NamedParams
from fedft.codecs.ternary import Ternary
from fedft.errors import Code, FedftError
from fedft.registries import CODECS

_BY_ID: dict[int, Any] = {kind.id: kind for kind in (Dense, Ternary, Rotated, BlockInt)}
_NAMED_VERSION = 1


def codec_names() -> tuple[str, ...]:
    """Every name that ``make_codec`` knows."""
    return CODECS.names()


def codec_versions() -> dict[int, int]:
    """Wire id to version of all that this build can decode; one id stands for every named codec."""
    return {codec_id: kind.version for codec_id, kind in _BY_ID.items()} | {NAMED: _NAMED_VERSION}


def make_codec(name: str, **options: Any) -> Codec:
    """Build a codec from its configured name and options.

    Raises:
        FedftError: FEDFT-1010 on an unknown name, FEDFT-4011 on an unknown option or a value out of range.

    """
    codec = CODECS.get(name)
    try:
        return codec.configured(codec.options.model_validate(options))
    except ValidationError as error:
        reason = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise FedftError(Code.CODEC_OPTIONS_INVALID, f"codec {name} with {options}: {reason}") from None


def codec_from_spec(spec: CodecSpec) -> Codec:
    """Build the codec that a shard names.

    Raises:
        FedftError: FEDFT-4010 on an unknown id, version or name, FEDFT-4011 on bad parameters.

    """
    if isinstance(spec.params, NamedParams) and spec.codec_id == NAMED:
        return _named(spec.version, spec.params)
    if spec.codec_id not in _BY_ID:
        raise FedftError(Code.CODEC_UNSUPPORTED, f"codec {spec.codec_id} is unknown here")
    kind = _BY_ID[spec.codec_id]
    if spec.version != kind.version:
        raise FedftError(
            Code.CODEC_UNSUPPORTED, f"codec {kind.__name__} version {spec.version} is unknown here"
        )
    if type(spec.params) is not kind.params:
        raise FedftError(
            Code.CODEC_OPTIONS_INVALID, f"codec {kind.__name__} came with {type(spec.params).__name__}"
        )
    codec: Codec = kind.of(spec.params)
    return codec


def _named(version: int, params: NamedParams) -> Codec:
    if params.name not in CODECS:
        raise FedftError(Code.CODEC_UNSUPPORTED, f"no codec is called {params.name[:64]!r} here")
    codec = CODECS.get(params.name)
    if (codec.id, codec.version) != (NAMED, version):
        raise FedftError(Code.CODEC_UNSUPPORTED, f"codec {params.name} version {version} is unknown here")
    try:
        return codec.configured(codec.options.model_validate_json(params.options))
    except ValidationError:
        raise FedftError(
            Code.CODEC_OPTIONS_INVALID, f"codec {params.name} came with {params.options[:80]!r}"
        ) from None
