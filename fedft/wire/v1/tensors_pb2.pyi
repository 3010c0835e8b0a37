from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CodecId(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODEC_ID_UNSPECIFIED: _ClassVar[CodecId]
    CODEC_ID_DENSE: _ClassVar[CodecId]
    CODEC_ID_TERNARY: _ClassVar[CodecId]
    CODEC_ID_ROTATED: _ClassVar[CodecId]
    CODEC_ID_BLOCK_INT: _ClassVar[CodecId]
    CODEC_ID_NAMED: _ClassVar[CodecId]

class DenseType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DENSE_TYPE_UNSPECIFIED: _ClassVar[DenseType]
    DENSE_TYPE_FLOAT32: _ClassVar[DenseType]
    DENSE_TYPE_BFLOAT16: _ClassVar[DenseType]

class TernaryRule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TERNARY_RULE_UNSPECIFIED: _ClassVar[TernaryRule]
    TERNARY_RULE_LEAST_SQUARES: _ClassVar[TernaryRule]
    TERNARY_RULE_COMPEFT: _ClassVar[TernaryRule]
CODEC_ID_UNSPECIFIED: CodecId
CODEC_ID_DENSE: CodecId
CODEC_ID_TERNARY: CodecId
CODEC_ID_ROTATED: CodecId
CODEC_ID_BLOCK_INT: CodecId
CODEC_ID_NAMED: CodecId
DENSE_TYPE_UNSPECIFIED: DenseType
DENSE_TYPE_FLOAT32: DenseType
DENSE_TYPE_BFLOAT16: DenseType
TERNARY_RULE_UNSPECIFIED: TernaryRule
TERNARY_RULE_LEAST_SQUARES: TernaryRule
TERNARY_RULE_COMPEFT: TernaryRule

class DenseParams(_message.Message):
    __slots__ = ("type",)
    TYPE_FIELD_NUMBER: _ClassVar[int]
    type: DenseType
    def __init__(self, type: _Optional[_Union[DenseType, str]] = ...) -> None: ...

class TernaryParams(_message.Message):
    __slots__ = ("density_ppm", "rule", "alpha")
    DENSITY_PPM_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    density_ppm: int
    rule: TernaryRule
    alpha: float
    def __init__(self, density_ppm: _Optional[int] = ..., rule: _Optional[_Union[TernaryRule, str]] = ..., alpha: _Optional[float] = ...) -> None: ...

class RotatedParams(_message.Message):
    __slots__ = ("bits",)
    BITS_FIELD_NUMBER: _ClassVar[int]
    bits: int
    def __init__(self, bits: _Optional[int] = ...) -> None: ...

class BlockIntParams(_message.Message):
    __slots__ = ("bits", "block")
    BITS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    bits: int
    block: int
    def __init__(self, bits: _Optional[int] = ..., block: _Optional[int] = ...) -> None: ...

class NamedParams(_message.Message):
    __slots__ = ("name", "options")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    options: str
    def __init__(self, name: _Optional[str] = ..., options: _Optional[str] = ...) -> None: ...

class CodecSpec(_message.Message):
    __slots__ = ("id", "version", "dense", "ternary", "rotated", "block_int", "named")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DENSE_FIELD_NUMBER: _ClassVar[int]
    TERNARY_FIELD_NUMBER: _ClassVar[int]
    ROTATED_FIELD_NUMBER: _ClassVar[int]
    BLOCK_INT_FIELD_NUMBER: _ClassVar[int]
    NAMED_FIELD_NUMBER: _ClassVar[int]
    id: CodecId
    version: int
    dense: DenseParams
    ternary: TernaryParams
    rotated: RotatedParams
    block_int: BlockIntParams
    named: NamedParams
    def __init__(self, id: _Optional[_Union[CodecId, str]] = ..., version: _Optional[int] = ..., dense: _Optional[_Union[DenseParams, _Mapping]] = ..., ternary: _Optional[_Union[TernaryParams, _Mapping]] = ..., rotated: _Optional[_Union[RotatedParams, _Mapping]] = ..., block_int: _Optional[_Union[BlockIntParams, _Mapping]] = ..., named: _Optional[_Union[NamedParams, _Mapping]] = ...) -> None: ...

class Shard(_message.Message):
    __slots__ = ("first_tensor", "tensor_count", "codec", "blob", "scales_f32le")
    FIRST_TENSOR_FIELD_NUMBER: _ClassVar[int]
    TENSOR_COUNT_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    SCALES_F32LE_FIELD_NUMBER: _ClassVar[int]
    first_tensor: int
    tensor_count: int
    codec: CodecSpec
    blob: bytes
    scales_f32le: bytes
    def __init__(self, first_tensor: _Optional[int] = ..., tensor_count: _Optional[int] = ..., codec: _Optional[_Union[CodecSpec, _Mapping]] = ..., blob: _Optional[bytes] = ..., scales_f32le: _Optional[bytes] = ...) -> None: ...
