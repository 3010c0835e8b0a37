from fedft.wire.v1 import tensors_pb2 as _tensors_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PrivacyMechanism(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIVACY_MECHANISM_UNSPECIFIED: _ClassVar[PrivacyMechanism]
    PRIVACY_MECHANISM_DP_SGD: _ClassVar[PrivacyMechanism]
    PRIVACY_MECHANISM_GAUSSIAN: _ClassVar[PrivacyMechanism]

class PrivacyUnit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIVACY_UNIT_UNSPECIFIED: _ClassVar[PrivacyUnit]
    PRIVACY_UNIT_EXAMPLE: _ClassVar[PrivacyUnit]
    PRIVACY_UNIT_CLIENT: _ClassVar[PrivacyUnit]

class InstructionKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INSTRUCTION_KIND_UNSPECIFIED: _ClassVar[InstructionKind]
    INSTRUCTION_KIND_HELLO: _ClassVar[InstructionKind]
    INSTRUCTION_KIND_TRAIN: _ClassVar[InstructionKind]
    INSTRUCTION_KIND_EVALUATE: _ClassVar[InstructionKind]
    INSTRUCTION_KIND_SKETCH: _ClassVar[InstructionKind]
    INSTRUCTION_KIND_ADVERTISE: _ClassVar[InstructionKind]
    INSTRUCTION_KIND_SHARE: _ClassVar[InstructionKind]
    INSTRUCTION_KIND_RECEIVE: _ClassVar[InstructionKind]
    INSTRUCTION_KIND_ATTEST: _ClassVar[InstructionKind]
    INSTRUCTION_KIND_UNMASK: _ClassVar[InstructionKind]
PRIVACY_MECHANISM_UNSPECIFIED: PrivacyMechanism
PRIVACY_MECHANISM_DP_SGD: PrivacyMechanism
PRIVACY_MECHANISM_GAUSSIAN: PrivacyMechanism
PRIVACY_UNIT_UNSPECIFIED: PrivacyUnit
PRIVACY_UNIT_EXAMPLE: PrivacyUnit
PRIVACY_UNIT_CLIENT: PrivacyUnit
INSTRUCTION_KIND_UNSPECIFIED: InstructionKind
INSTRUCTION_KIND_HELLO: InstructionKind
INSTRUCTION_KIND_TRAIN: InstructionKind
INSTRUCTION_KIND_EVALUATE: InstructionKind
INSTRUCTION_KIND_SKETCH: InstructionKind
INSTRUCTION_KIND_ADVERTISE: InstructionKind
INSTRUCTION_KIND_SHARE: InstructionKind
INSTRUCTION_KIND_RECEIVE: InstructionKind
INSTRUCTION_KIND_ATTEST: InstructionKind
INSTRUCTION_KIND_UNMASK: InstructionKind

class RoundRef(_message.Message):
    __slots__ = ("run_id", "round")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    round: int
    def __init__(self, run_id: _Optional[str] = ..., round: _Optional[int] = ...) -> None: ...

class ModelRef(_message.Message):
    __slots__ = ("base_digest", "frame_digest", "manifest_digest", "global_state_digest")
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FRAME_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    base_digest: bytes
    frame_digest: bytes
    manifest_digest: bytes
    global_state_digest: bytes
    def __init__(self, base_digest: _Optional[bytes] = ..., frame_digest: _Optional[bytes] = ..., manifest_digest: _Optional[bytes] = ..., global_state_digest: _Optional[bytes] = ...) -> None: ...

class PrivacyStatement(_message.Message):
    __slots__ = ("mechanism", "unit", "noise_multiplier", "max_norm", "sample_rate", "steps", "epsilon", "delta", "accountant", "ledger_sequence", "ledger_digest")
    MECHANISM_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    NOISE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    MAX_NORM_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    ACCOUNTANT_FIELD_NUMBER: _ClassVar[int]
    LEDGER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LEDGER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    mechanism: PrivacyMechanism
    unit: PrivacyUnit
    noise_multiplier: float
    max_norm: float
    sample_rate: float
    steps: int
    epsilon: float
    delta: float
    accountant: str
    ledger_sequence: int
    ledger_digest: bytes
    def __init__(self, mechanism: _Optional[_Union[PrivacyMechanism, str]] = ..., unit: _Optional[_Union[PrivacyUnit, str]] = ..., noise_multiplier: _Optional[float] = ..., max_norm: _Optional[float] = ..., sample_rate: _Optional[float] = ..., steps: _Optional[int] = ..., epsilon: _Optional[float] = ..., delta: _Optional[float] = ..., accountant: _Optional[str] = ..., ledger_sequence: _Optional[int] = ..., ledger_digest: _Optional[bytes] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("round", "model", "client_id", "update_seq", "num_examples", "shards", "metrics", "privacy", "required_features", "masked")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ROUND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    UPDATE_SEQ_FIELD_NUMBER: _ClassVar[int]
    NUM_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FEATURES_FIELD_NUMBER: _ClassVar[int]
    MASKED_FIELD_NUMBER: _ClassVar[int]
    round: RoundRef
    model: ModelRef
    client_id: str
    update_seq: int
    num_examples: int
    shards: _containers.RepeatedCompositeFieldContainer[_tensors_pb2.Shard]
    metrics: _containers.ScalarMap[str, float]
    privacy: PrivacyStatement
    required_features: _containers.RepeatedScalarFieldContainer[str]
    masked: bytes
    def __init__(self, round: _Optional[_Union[RoundRef, _Mapping]] = ..., model: _Optional[_Union[ModelRef, _Mapping]] = ..., client_id: _Optional[str] = ..., update_seq: _Optional[int] = ..., num_examples: _Optional[int] = ..., shards: _Optional[_Iterable[_Union[_tensors_pb2.Shard, _Mapping]]] = ..., metrics: _Optional[_Mapping[str, float]] = ..., privacy: _Optional[_Union[PrivacyStatement, _Mapping]] = ..., required_features: _Optional[_Iterable[str]] = ..., masked: _Optional[bytes] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("round", "model", "client_id", "num_examples", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ROUND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    NUM_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    round: RoundRef
    model: ModelRef
    client_id: str
    num_examples: int
    metrics: _containers.ScalarMap[str, float]
    def __init__(self, round: _Optional[_Union[RoundRef, _Mapping]] = ..., model: _Optional[_Union[ModelRef, _Mapping]] = ..., client_id: _Optional[str] = ..., num_examples: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ...) -> None: ...

class CodecVersion(_message.Message):
    __slots__ = ("id", "version")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    id: _tensors_pb2.CodecId
    version: int
    def __init__(self, id: _Optional[_Union[_tensors_pb2.CodecId, str]] = ..., version: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("client_id", "base_digest", "num_examples", "wire_version", "codecs", "features", "introduction")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUM_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    WIRE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CODECS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    INTRODUCTION_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    base_digest: bytes
    num_examples: int
    wire_version: int
    codecs: _containers.RepeatedCompositeFieldContainer[CodecVersion]
    features: _containers.RepeatedScalarFieldContainer[str]
    introduction: bytes
    def __init__(self, client_id: _Optional[str] = ..., base_digest: _Optional[bytes] = ..., num_examples: _Optional[int] = ..., wire_version: _Optional[int] = ..., codecs: _Optional[_Iterable[_Union[CodecVersion, _Mapping]]] = ..., features: _Optional[_Iterable[str]] = ..., introduction: _Optional[bytes] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("round", "code", "message", "client_id")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    round: RoundRef
    code: str
    message: str
    client_id: str
    def __init__(self, round: _Optional[_Union[RoundRef, _Mapping]] = ..., code: _Optional[str] = ..., message: _Optional[str] = ..., client_id: _Optional[str] = ...) -> None: ...

class NeedSetup(_message.Message):
    __slots__ = ("round", "setup_digest")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SETUP_DIGEST_FIELD_NUMBER: _ClassVar[int]
    round: RoundRef
    setup_digest: bytes
    def __init__(self, round: _Optional[_Union[RoundRef, _Mapping]] = ..., setup_digest: _Optional[bytes] = ...) -> None: ...

class SecaggAnswer(_message.Message):
    __slots__ = ("round", "client_id", "message")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    round: RoundRef
    client_id: str
    message: bytes
    def __init__(self, round: _Optional[_Union[RoundRef, _Mapping]] = ..., client_id: _Optional[str] = ..., message: _Optional[bytes] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("update", "evaluation", "hello", "refusal", "need_setup", "secagg")
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    NEED_SETUP_FIELD_NUMBER: _ClassVar[int]
    SECAGG_FIELD_NUMBER: _ClassVar[int]
    update: Update
    evaluation: Evaluation
    hello: Hello
    refusal: Refusal
    need_setup: NeedSetup
    secagg: SecaggAnswer
    def __init__(self, update: _Optional[_Union[Update, _Mapping]] = ..., evaluation: _Optional[_Union[Evaluation, _Mapping]] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., need_setup: _Optional[_Union[NeedSetup, _Mapping]] = ..., secagg: _Optional[_Union[SecaggAnswer, _Mapping]] = ...) -> None: ...

class Setup(_message.Message):
    __slots__ = ("config_json", "frame")
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    config_json: str
    frame: bytes
    def __init__(self, config_json: _Optional[str] = ..., frame: _Optional[bytes] = ...) -> None: ...

class Acknowledgement(_message.Message):
    __slots__ = ("round", "update_seq", "accepted")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    UPDATE_SEQ_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    round: int
    update_seq: int
    accepted: bool
    def __init__(self, round: _Optional[int] = ..., update_seq: _Optional[int] = ..., accepted: _Optional[bool] = ...) -> None: ...

class Instruction(_message.Message):
    __slots__ = ("round", "kind", "model", "setup_digest", "setup", "global_state", "delta_base_digest", "accepted_codecs", "codec_seed", "deadline_seconds", "acknowledgements", "required_features", "max_update_norm", "secagg")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SETUP_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SETUP_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STATE_FIELD_NUMBER: _ClassVar[int]
    DELTA_BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_CODECS_FIELD_NUMBER: _ClassVar[int]
    CODEC_SEED_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGEMENTS_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FEATURES_FIELD_NUMBER: _ClassVar[int]
    MAX_UPDATE_NORM_FIELD_NUMBER: _ClassVar[int]
    SECAGG_FIELD_NUMBER: _ClassVar[int]
    round: RoundRef
    kind: InstructionKind
    model: ModelRef
    setup_digest: bytes
    setup: Setup
    global_state: _containers.RepeatedCompositeFieldContainer[_tensors_pb2.Shard]
    delta_base_digest: bytes
    accepted_codecs: _containers.RepeatedCompositeFieldContainer[_tensors_pb2.CodecSpec]
    codec_seed: bytes
    deadline_seconds: float
    acknowledgements: _containers.RepeatedCompositeFieldContainer[Acknowledgement]
    required_features: _containers.RepeatedScalarFieldContainer[str]
    max_update_norm: float
    secagg: bytes
    def __init__(self, round: _Optional[_Union[RoundRef, _Mapping]] = ..., kind: _Optional[_Union[InstructionKind, str]] = ..., model: _Optional[_Union[ModelRef, _Mapping]] = ..., setup_digest: _Optional[bytes] = ..., setup: _Optional[_Union[Setup, _Mapping]] = ..., global_state: _Optional[_Iterable[_Union[_tensors_pb2.Shard, _Mapping]]] = ..., delta_base_digest: _Optional[bytes] = ..., accepted_codecs: _Optional[_Iterable[_Union[_tensors_pb2.CodecSpec, _Mapping]]] = ..., codec_seed: _Optional[bytes] = ..., deadline_seconds: _Optional[float] = ..., acknowledgements: _Optional[_Iterable[_Union[Acknowledgement, _Mapping]]] = ..., required_features: _Optional[_Iterable[str]] = ..., max_update_norm: _Optional[float] = ..., secagg: _Optional[bytes] = ...) -> None: ...
