"""Tensors to bytes and back, with exact sizes checked against the receiver's own manifest."""

from fedft.codecs.interface import Codec, CodecContext, Decoded, Domain, Sink
from fedft.codecs.manifest import Manifest, TensorSpec, as_float32, state_digest
from fedft.codecs.registry import codec_from_spec, codec_names, codec_versions, make_codec
from fedft.codecs.spec import CodecSpec, Shard
from fedft.codecs.update import DecodedUpdate, decode, decode_update

__all__ = [
    "Codec",
    "CodecContext",
    "CodecSpec",
    "Decoded",
    "DecodedUpdate",
    "Domain",
    "Manifest",
    "Shard",
    "Sink",
    "TensorSpec",
    "as_float32",
    "codec_from_spec",
    "codec_names",
    "codec_versions",
    "decode",
    "decode_update",
    "make_codec",
    "state_digest",
]
